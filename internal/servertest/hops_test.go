package servertest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
	"github.com/millrace/millrace/internal/whisk"
)

// roundAgain fires the trigger that it is run by, as OpenWhisk's own client
// would: with the address and the key that it was given.
const roundAgain = `
import base64, http.client, json, os

def main(args):
    host = os.environ["__OW_API_HOST"].split("//")[-1].rstrip("/")
    key = base64.b64encode(os.environ["__OW_API_KEY"].encode()).decode()
    c = http.client.HTTPConnection(host)
    c.request("POST", "/api/v1/namespaces/_/triggers/round", json.dumps({"n": args["n"] + 1}),
              {"Authorization": "Basic " + key, "Content-Type": "application/json"})
    answer = c.getresponse()
    return {"status": answer.status, "fired": json.loads(answer.read())["activationId"]}
`

// TestCircleEnds has a rule's action fire the trigger that the rule is bound
// to. Every event knows what led to it, and the one that is sixteen events away
// from the first is a dead letter that says so.
func TestCircleEnds(t *testing.T) {
	p := newProcess(t, "process")
	p.Start()
	p.Must(t, http.StatusOK, "PUT", "/api/v1/namespaces/_/actions/again", map[string]any{
		"exec":        map[string]any{"kind": "python:3", "code": roundAgain},
		"annotations": []any{map[string]any{"key": "provide-api-key", "value": true}},
	}, nil)
	p.PutRule(t, "on-round", "round", "again", nil)
	var first struct{ ActivationID string }
	p.Must(t, http.StatusAccepted, "POST", "/api/v1/namespaces/_/triggers/round", `{"n":0}`, &first)

	var letters struct{ DeadLetters []whisk.DeadLetter }
	servertest.Eventually(t, time.Minute, "the circle ends in a dead letter", func() bool {
		p.Must(t, http.StatusOK, "GET", "/hub/v1/dead-letters", nil, &letters)
		return len(letters.DeadLetters) > 0
	})
	l := letters.DeadLetters[0]
	if len(letters.DeadLetters) != 1 || l.Event == nil || !strings.Contains(l.Reason, "16 events away from its first cause") {
		t.Fatalf("dead letters = %+v, want one of an event that came too far", letters.DeadLetters)
	}
	if string(l.Event.Payload) != `{"n":16}` {
		t.Errorf("the last event says %s, want {\"n\":16}", l.Event.Payload)
	}
	// Back from the last event to the first, each by its cause. The letter is
	// written before the verdict, by which events are found.
	id := l.Event.ID
	servertest.Eventually(t, time.Minute, "the last event is judged", func() bool {
		a, err := p.Do(t.Context(), "GET", "/hub/v1/events/"+id, nil)
		return err == nil && a.Status == http.StatusOK
	})
	for hops := whisk.MaxHops; hops >= 0; hops-- {
		var got struct{ Event whisk.Event }
		p.Must(t, http.StatusOK, "GET", "/hub/v1/events/"+id, nil, &got)
		ev := got.Event
		if hops == 0 {
			if id != first.ActivationID || ev.Cause != "" || ev.Correlation != "" || ev.Hops != 0 {
				t.Errorf("the first event is %+v, want %s and without a cause", ev, first.ActivationID)
			}
			break
		}
		if ev.Hops != hops || ev.Correlation != first.ActivationID || ev.Cause == "" {
			t.Fatalf("event %s = %+v, want %d hops and the correlation %s", id, ev, hops, first.ActivationID)
		}
		var run whisk.Activation
		a := p.Must(t, http.StatusOK, "GET", "/api/v1/namespaces/_/activations/"+ev.Cause, nil, nil)
		if err := json.Unmarshal(a.Body, &run); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(`"fired":"%s"`, id); !strings.Contains(strings.ReplaceAll(string(run.Result), `": `, `":`), want) {
			t.Fatalf("the cause of event %s answered %s, want %s in it", id, run.Result, want)
		}
		id = causeOf(t, p, ev.Cause)
	}
}

// causeOf returns the event whose match an activation was.
func causeOf(t *testing.T, p *servertest.Process, activation string) string {
	t.Helper()
	for _, id := range listEvents(t, p, "round") {
		for _, r := range explain(t, p, id).Rules {
			if r.ActivationID == activation {
				return id
			}
		}
	}
	t.Fatalf("no event led to activation %s", activation)
	return ""
}
