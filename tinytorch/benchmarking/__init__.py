"""Models measured side by side: their speed, size and accuracy, with intervals, and never from memory."""
