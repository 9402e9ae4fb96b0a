"""The gates that a challenger must pass before it becomes champion: one class each."""
