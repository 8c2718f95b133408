"""The same report for TensorFlow: reads and assigns of variables under gradient tapes.

Nothing here is imported before the program itself has imported TensorFlow.
"""
