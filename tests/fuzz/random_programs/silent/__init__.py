"""Programs with a silent write: nothing raises, and a gradient may be wrong."""
