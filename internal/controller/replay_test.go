package controller_test

import (
	"testing"

	"github.com/millrace/millrace/internal/controller/replaytest"
)

func TestReplay(t *testing.T) {
	replaytest.Run(t, replaytest.Server{URL: newWorld(t).serve(t), Key: guestKey})
}
