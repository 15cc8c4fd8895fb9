//go:build !faultpoints

package main

import "github.com/millrace/millrace/internal/server"

// forTests is nothing in a build that people run.
func forTests(*server.Options) error { return nil }
