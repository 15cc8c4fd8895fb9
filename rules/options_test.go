package rules

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func TestParseOptions(t *testing.T) {
	std := whisk.StdRetry()
	with := func(f func(*whisk.Retry)) whisk.Retry {
		r := std
		f(&r)
		return r
	}
	for _, tt := range []struct {
		annotations string
		want        whisk.Retry
		filtered    bool
	}{
		{`[]`, std, false},
		{`[{"key":"description","value":"x"},{"key":"retries","value":9}]`, std, false},
		{`[{"key":"filter","value":{"a":[1]}}]`, std, true},
		{`[{"key":"retry","value":{}}]`, std, false},
		{`[{"key":"retry","value":{"attempts":100}}]`, with(func(r *whisk.Retry) { r.Attempts = 100 }), false},
		{`[{"key":"retry","value":{"backoff":"250ms","maxBackoff":90,"maxAge":"168h"}}]`, with(func(r *whisk.Retry) {
			r.Backoff, r.MaxBackoff, r.MaxAge = 250*time.Millisecond, 90*time.Second, 7*24*time.Hour
		}), false},
		{`[{"key":"retry","value":{"backoff":0.5}}]`, with(func(r *whisk.Retry) { r.Backoff = 500 * time.Millisecond }), false},
		{`[{"key":"retry","value":{"backoff":"10m"}}]`, with(func(r *whisk.Retry) { r.Backoff, r.MaxBackoff = 10*time.Minute, 10*time.Minute }), false},
		{`[{"key":"retry","value":{"on":["application","timeout"]}}]`, with(func(r *whisk.Retry) {
			r.Platform, r.Timeout, r.Application = false, true, true
		}), false},
	} {
		var as whisk.Params
		if err := json.Unmarshal([]byte(tt.annotations), &as); err != nil {
			t.Fatal(err)
		}
		o, err := ParseOptions(as)
		if err != nil || o.Retry != tt.want || (o.Filter != nil) != tt.filtered {
			t.Errorf("ParseOptions(%s) = %+v, %v; want %+v, filter %v", tt.annotations, o, err, tt.want, tt.filtered)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	const known = "found an unknown member, expected one of attempts, backoff, maxBackoff, maxAge, on"
	for _, tt := range []struct{ annotations, want string }{
		{`[{"key":"filter","value":[]}]`, "filter: found an array, expected an object (line 1, column 1)"},
		{`[{"key":"retry","value":3}]`, "retry: found 3, expected an object"},
		{`[{"key":"retry","value":{"attempts":0}}]`, "retry.attempts: found 0, expected a whole number from 1 to 100"},
		{`[{"key":"retry","value":{"attempts":"3"}}]`, `retry.attempts: found "3", expected a whole number from 1 to 100`},
		{`[{"key":"retry","value":{"attempts":101}}]`, "retry.attempts: found 101, expected a whole number from 1 to 100"},
		{`[{"key":"retry","value":{"attempts":2,"attempts":3}}]`, "retry: found attempts twice, expected it once"},
		{`[{"key":"retry","value":{"tries":3}}]`, "retry.tries: " + known},
		{`[{"key":"retry","value":{"backoff":"soon"}}]`, `retry.backoff: found "soon", expected seconds or a text as "1m30s", from 10ms to 1h0m0s`},
		{`[{"key":"retry","value":{"backoff":-1}}]`, `retry.backoff: found -1, expected seconds or a text as "1m30s", from 10ms to 1h0m0s`},
		{`[{"key":"retry","value":{"maxBackoff":1e99}}]`, `retry.maxBackoff: found 1e99, expected seconds or a text as "1m30s", from 10ms to 24h0m0s`},
		{`[{"key":"retry","value":{"backoff":60,"maxBackoff":30}}]`, "retry.maxBackoff: found 30s, expected at least the backoff, 1m0s"},
		{`[{"key":"retry","value":{"maxAge":null}}]`, `retry.maxAge: found null, expected seconds or a text as "1m30s", from 1s to 168h0m0s`},
		{`[{"key":"retry","value":{"on":[]}}]`, `retry.on: found [], expected a list of "platform", "timeout", "application"`},
		{`[{"key":"retry","value":{"on":"platform"}}]`, `retry.on: found "platform", expected a list of "platform", "timeout", "application"`},
		{`[{"key":"retry","value":{"on":["network"]}}]`, `retry.on: found "network", expected a list of "platform", "timeout", "application"`},
		{`[{"key":"retry","value":{"on":["timeout","timeout"]}}]`, `retry.on: found "timeout" twice, expected it once`},
		{`[{"key":"retry","value":{"attempts":1,"backoff":2}}]`, "retry.backoff: means nothing when attempts is 1, expected it left out"},
		{`[{"key":"dead-letter","value":true}]`, "dead-letter: this annotation is not supported yet"},
		{
			`[{"key":"transform","value":{}},{"key":"order-by","value":"a"},{"key":"batch","value":{}},{"key":"dedupe","value":{}},{"key":"limit","value":{}}]`,
			"transform: this annotation is not supported yet; order-by: this annotation is not supported yet; batch: this annotation is not supported yet; " +
				"dedupe: this annotation is not supported yet; limit: this annotation is not supported yet",
		},
		{
			`[{"key":"filter","value":{"a":1}},{"key":"retry","value":{"attempts":0,"x":1}},{"key":"limit","value":{}}]`,
			"filter: a: found a number, expected an object or an array of values (line 1, column 6); retry.x: " + known +
				"; retry.attempts: found 0, expected a whole number from 1 to 100; limit: this annotation is not supported yet",
		},
	} {
		var as whisk.Params
		if err := json.Unmarshal([]byte(tt.annotations), &as); err != nil {
			t.Fatal(err)
		}
		_, err := ParseOptions(as)
		if !errors.Is(err, whisk.Invalid) {
			t.Errorf("ParseOptions(%s) error = %v, want Invalid", tt.annotations, err)
			continue
		}
		if got := whisk.Message(err); got != tt.want {
			t.Errorf("ParseOptions(%s)\n got %q\nwant %q", tt.annotations, got, tt.want)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{`{"attempts":3,"on":["platform"]}`, `{"backoff":"1s","maxBackoff":2.5}`, `[]`, `{"maxAge":"1h"`, `{"a":[1]}`} {
		f.Add("retry", []byte(s))
		f.Add("filter", []byte(s))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		o, err := ParseOptions(whisk.Params{{Key: key, Value: value}})
		if err != nil {
			if !errors.Is(err, whisk.Invalid) || whisk.Message(err) == "" {
				t.Errorf("error = %v, want Invalid with a text", err)
			}
			return
		}
		r := o.Retry
		if r.Attempts < 1 || r.Attempts > maxAttempts || r.Backoff < minBackoff || r.MaxBackoff < r.Backoff || r.MaxAge < minMaxAge ||
			!r.Platform && !r.Timeout && !r.Application {
			t.Errorf("accepted %s: %+v", value, r)
		}
	})
}
