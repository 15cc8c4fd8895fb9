package journal

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/millrace/millrace/internal/whisk"
)

// firedLine is what a trigger's activation says of one rule, in OpenWhisk's
// words and order.
type firedLine struct {
	StatusCode   int    `json:"statusCode"`
	Success      bool   `json:"success"`
	Rule         string `json:"rule"`
	Action       string `json:"action"`
	ActivationID string `json:"activationId,omitempty"`
	Error        string `json:"error,omitempty"`
}

// fired renders a verdict as OpenWhisk's activation of the trigger. The result
// is the payload as it was sent, as long as the archive has it.
func (j *Journal) fired(ctx context.Context, v *whisk.Verdict) whisk.Activation {
	a := whisk.Activation{
		ID: v.Event.ID, Namespace: v.Trigger.Namespace, Name: v.Trigger.Entity,
		Version: v.Version, Subject: v.Actor, Start: firedAt(v), Size: -1,
		Result: json.RawMessage("{}"),
	}
	if a.Subject == "" {
		a.Subject = a.Namespace // a feed fired it, for the namespace
	}
	// EVENTS and JOURNAL are trimmed apart: the record may outlive its payload.
	if ev, err := j.bus.Event(ctx, v.Event.Seq); err == nil && ev.ID == v.Event.ID && len(ev.Payload) > 0 {
		a.Result = ev.Payload
	}
	for i := range v.Rules {
		b, err := json.Marshal(lineOf(&v.Rules[i]))
		if err == nil {
			a.Logs = append(a.Logs, string(b))
		}
	}
	return a
}

// lineOf says what became of one rule. A filtered rule has no counterpart in
// OpenWhisk: it is told like an inactive one, with the reason.
func lineOf(r *whisk.RuleVerdict) firedLine {
	l := firedLine{StatusCode: 1, Rule: r.Rule.Path(), Action: r.Action.Path()}
	switch r.Decision {
	case whisk.Matched:
		l.StatusCode, l.Success, l.ActivationID = 0, true, r.ActivationID
	case whisk.Filtered:
		l.Error = fmt.Sprintf("Rule '%s' did not pass the event, action '%s' was not activated: %s", l.Rule, l.Action, r.Reason)
	default:
		l.Error = fmt.Sprintf("Rule '%s' is inactive, action '%s' was not activated.", l.Rule, l.Action)
	}
	return l
}
