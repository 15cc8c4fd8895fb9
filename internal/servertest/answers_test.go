package servertest_test

import (
	"testing"

	"github.com/millrace/millrace/internal/controller/replaytest"
)

// TestAnswers holds the conversation that was recorded with a real OpenWhisk,
// and those of our own, with the real binary.
func TestAnswers(t *testing.T) {
	p := newProcess(t, "process")
	p.Start()
	replaytest.Run(t, replaytest.Server{URL: p.URL, Key: p.Auth})
}
