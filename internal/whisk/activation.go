package whisk

import (
	"encoding/json"
	"strings"
	"time"
)

// Outcome is how an activation ended, as OpenWhisk numbers it.
type Outcome int

// The outcomes of an activation.
const (
	Success          Outcome = iota
	ApplicationError         // the action answered {"error": …}
	DeveloperError           // it could not be loaded, crashed, ran out of time or memory, or answered nonsense
	WhiskError               // it was our fault
)

var outcomeTexts = [...]string{"success", "application error", "action developer error", "whisk internal error"}

// String returns OpenWhisk's text for o, as in "application error".
func (o Outcome) String() string {
	if o < 0 || int(o) >= len(outcomeTexts) {
		return outcomeTexts[WhiskError]
	}
	return outcomeTexts[o]
}

// Activation is the record of one run of an action, or of one event of a
// trigger. As JSON it is OpenWhisk's record, field for field.
type Activation struct {
	ID          string
	Namespace   string // whose record it is: that of the invoker, not of the action
	Name        string // of the action or trigger
	Version     string
	Subject     string
	Cause       string // the enclosing activation; empty at the top
	Start       time.Time
	End         time.Time     // zero for triggers
	Duration    time.Duration // of init and run; zero for triggers
	Outcome     Outcome
	Result      json.RawMessage // nil when there is none
	Size        int             // characters of the action's answer; -1 when it gave none
	Logs        []string
	Annotations Params
}

// response is the wire form of what an activation answered.
type response struct {
	Result  json.RawMessage `json:"result,omitempty"`
	Size    *int            `json:"size,omitempty"`
	Status  string          `json:"status"`
	Success bool            `json:"success"`
}

type activationJSON struct {
	ID          string   `json:"activationId"`
	Annotations Params   `json:"annotations"`
	Cause       string   `json:"cause,omitempty"`
	Duration    *int64   `json:"duration,omitempty"`
	End         *int64   `json:"end,omitempty"`
	Logs        []string `json:"logs"`
	Name        string   `json:"name"`
	Namespace   string   `json:"namespace"`
	Publish     bool     `json:"publish"`
	Response    response `json:"response"`
	Start       int64    `json:"start"`
	Subject     string   `json:"subject"`
	Version     string   `json:"version"`
}

// MarshalJSON writes OpenWhisk's full record: times in milliseconds, no end
// and duration for a record without an end.
func (a Activation) MarshalJSON() ([]byte, error) {
	w := activationJSON{
		ID: a.ID, Annotations: a.Annotations, Cause: a.Cause, Logs: a.Logs, Name: a.Name,
		Namespace: a.Namespace, Start: a.Start.UnixMilli(), Subject: a.Subject, Version: a.Version,
		Response: a.response(),
	}
	if w.Logs == nil {
		w.Logs = []string{}
	}
	if !a.End.IsZero() {
		end, ms := a.endMillis()
		w.End, w.Duration = &end, &ms
	}
	return json.Marshal(w)
}

// endMillis returns the end and the duration as they are shown. Cutting each of
// start, end and duration to whole milliseconds would make sums that do not add
// up: a duration that is the span from start to end is shown as theirs.
func (a *Activation) endMillis() (end, duration int64) {
	end = a.End.UnixMilli()
	if a.End.Sub(a.Start) == a.Duration {
		return end, end - a.Start.UnixMilli()
	}
	return end, a.Duration.Milliseconds()
}

func (a *Activation) response() response {
	r := response{Result: a.Result, Status: a.Outcome.String(), Success: a.Outcome == Success}
	if a.Size >= 0 {
		r.Size = &a.Size
	}
	return r
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (a *Activation) UnmarshalJSON(b []byte) error {
	var w activationJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*a = Activation{
		ID: w.ID, Annotations: w.Annotations, Cause: w.Cause, Logs: w.Logs, Name: w.Name,
		Namespace: w.Namespace, Start: time.UnixMilli(w.Start).UTC(), Subject: w.Subject,
		Version: w.Version, Outcome: WhiskError, Result: w.Response.Result, Size: -1,
	}
	for i, t := range outcomeTexts {
		if t == w.Response.Status {
			a.Outcome = Outcome(i)
		}
	}
	if w.Response.Size != nil {
		a.Size = *w.Response.Size
	}
	if w.End != nil {
		a.End = time.UnixMilli(*w.End).UTC()
	}
	if w.Duration != nil {
		a.Duration = time.Duration(*w.Duration) * time.Millisecond
	}
	return nil
}

// Response returns the answer alone, as GET activations/ID/result shows it.
func (a *Activation) Response() any { return a.response() }

// Summary returns the record as lists show it.
func (a *Activation) Summary() any {
	s := struct {
		Namespace   string   `json:"namespace"`
		Name        string   `json:"name"`
		Version     string   `json:"version"`
		Publish     bool     `json:"publish"`
		Annotations Params   `json:"annotations"`
		ID          string   `json:"activationId"`
		Start       int64    `json:"start"`
		Cause       string   `json:"cause,omitempty"`
		End         *int64   `json:"end,omitempty"`
		Duration    *int64   `json:"duration,omitempty"`
		StatusCode  *Outcome `json:"statusCode,omitempty"`
	}{
		Namespace: a.Namespace, Name: a.Name, Version: a.Version, Annotations: a.Annotations,
		ID: a.ID, Start: a.Start.UnixMilli(), Cause: a.Cause,
	}
	if !a.End.IsZero() {
		end, ms := a.endMillis()
		s.End, s.Duration, s.StatusCode = &end, &ms, &a.Outcome
	}
	return s
}

// FilterName returns what the name parameter of activation lists is compared
// with: package/name for a packaged action, under the binding's name where
// there is one, else the bare name.
func (a *Activation) FilterName() string {
	if b := a.Annotations.Text("binding"); b != "" {
		return b[strings.LastIndexByte(b, '/')+1:] + "/" + a.Name
	}
	if p := strings.Split(a.Annotations.Text("path"), "/"); len(p) == 3 {
		return p[1] + "/" + p[2]
	}
	return a.Name
}
