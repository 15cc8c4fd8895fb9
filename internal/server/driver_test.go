package server

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/docker"
)

// offering is a driver of which only the offers are asked for.
type offering struct {
	invoker.Driver
	faults map[string]error // by kind
}

func (o offering) Offers(_ context.Context, r whisk.Runtime) error { return o.faults[r.Kind] }

// Why Docker was not taken is told at start: every image that lacks, at once.
func TestWhyProcesses(t *testing.T) {
	lacks := func(image string) error { return fmt.Errorf("%w (docker pull %s)", docker.ErrNoImage, image) }
	kinds, err := whisk.ParseRuntimes([]byte(`{"runtimes": {
		"nodejs": [{"kind": "nodejs:20", "image": {"name": "node", "tag": "20-slim"}}],
		"native": [{"kind": "native:1", "image": {"registry": "far.example:5000", "prefix": "library", "name": "debian", "tag": "stable-slim"}}],
		"php": [{"kind": "php:8", "image": {"name": "node", "tag": "20-slim"}}],
		"python": [{"kind": "python:3", "default": true, "image": {"name": "python"}}, {"kind": "python:2", "image": {"name": "python", "tag": "2"}}]
	}}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		faults map[string]error
		want   string // empty: Docker is taken
	}{
		"all there":            {},
		"not a default's":      {faults: map[string]error{"python:2": lacks("python:2")}},
		"some lack, one twice": {map[string]error{"nodejs:20": lacks("x"), "php:8": lacks("x"), "native:1": lacks("y")}, "Docker answers but lacks images (debian:stable-slim, node:20-slim), so actions run as processes; --driver docker pulls them"},
		"another cause":        {map[string]error{"native:1": lacks("y"), "python:3": errors.New("no mount")}, "actions run in processes, since Docker can't be used: python:3: no mount; --driver docker insists on it"},
	} {
		t.Run(name, func(t *testing.T) {
			err := offersAll(t.Context(), offering{faults: tt.faults}, kinds)
			if got := ""; err != nil || tt.want != "" {
				if err != nil {
					got = whyProcesses(err)
				}
				if got != tt.want {
					t.Errorf("told %q, want %q", got, tt.want)
				}
			}
		})
	}
}
