"""What the gate shows of itself: health, statistics, metrics, the control socket."""
