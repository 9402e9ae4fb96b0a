"""What a challenger must show before it may become the champion: one class a gate."""
