package servertest_test

import (
	"testing"

	"github.com/millrace/millrace/internal/controller/replaytest"
	"github.com/millrace/millrace/internal/servertest"
)

// TestAnswers holds the conversation that was recorded with a real OpenWhisk,
// and those of our own, with the real binary: actions answer alike whatever
// runs them.
func TestAnswers(t *testing.T) {
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) {
			p := newProcess(t, driver)
			p.Start()
			replaytest.Run(t, replaytest.Server{URL: p.URL, Key: p.Auth})
			if code := p.Stop(); code != 0 { // orderly, so that no container is left
				t.Errorf("the server ended with exit code %d", code)
			}
		})
	}
}
