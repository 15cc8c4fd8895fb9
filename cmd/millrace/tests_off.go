//go:build !faultpoints

package main

// fault is nothing in a build that people run.
func fault() func(point string) { return nil }
