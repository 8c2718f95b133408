"""What happened: the recorder, the only code of ours that runs while the user's code runs.

``trace`` installs everything and takes it away again; ``mode`` sees operations, ``saved`` sees saved tensors,
``engine`` sees backward calls, ``optimizers`` sees steps, ``outside`` sees what torch does not dispatch. Nothing here
knows IPython, names of variables or verdicts: that is the business of ``explain``.
"""
