package launcher

// RunNative is the native launcher.
func RunNative(args []string) int { return 1 }
