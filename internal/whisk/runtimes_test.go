package whisk_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

const twoFamilies = `{"runtimes":{
	"python":[{"kind":"python:3","image":{"name":"python","tag":"3-slim"},"launcher":"python"}],
	"nodejs":[
		{"kind":"nodejs:18","image":{"prefix":"openwhisk","name":"action-nodejs-v18"},"deprecated":true},
		{"kind":"nodejs:20","image":{"registry":"r:5000","prefix":"p","name":"n","tag":"t"},"default":true}]},
	"blackboxes":[]}`

func TestRuntimes(t *testing.T) {
	r, err := whisk.ParseRuntimes([]byte(twoFamilies))
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"python:3": "python:3", "python:default": "python:3", " NodeJS:Default ": "nodejs:20", "nodejs:18": "nodejs:18",
	} {
		if got, err := r.Find(in); err != nil || got.Kind != want {
			t.Errorf("Find(%q) = %q, %v, want %q", in, got.Kind, err, want)
		}
	}
	_, err = r.Find("cobol:60")
	want := "The specified runtime 'cobol:60' is not supported by this platform. Valid values are: 'blackbox', 'nodejs:18', 'nodejs:20', 'python:3'."
	if !errors.Is(err, whisk.Invalid) || whisk.Message(err) != want {
		t.Errorf("Find(cobol:60) = %v, want Invalid with %q", err, want)
	}
	if got := r.Families()["nodejs"][1].Image.String(); got != "r:5000/p/n:t" {
		t.Errorf("image = %q, want r:5000/p/n:t", got)
	}
	left := r.Keep(func(e whisk.Runtime) bool { return e.Kind != "nodejs:20" })
	if got, err := left.Find("nodejs:default"); err != nil || got.Kind != "nodejs:18" {
		t.Errorf("default after losing nodejs:20 = %q, %v, want nodejs:18", got.Kind, err)
	}
	if n := len(r.All()); n != 3 {
		t.Errorf("Keep changed its receiver: %d kinds left, want 3", n)
	}
}

func TestParseRuntimesRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ doc, text string }{
		"not JSON":       {`{`, "unexpected EOF"},
		"unknown member": {`{"runtimes":{},"x":1}`, "unknown field"},
		"two defaults":   {strings.Replace(twoFamilies, `"deprecated":true`, `"default":true`, 1), "2 kinds are the default"},
		"no default":     {strings.Replace(twoFamilies, `"default":true`, `"default":false`, 1), "0 kinds are the default"},
		"wrong family":   {strings.Replace(twoFamilies, `nodejs:18`, `php:8`, 1), `kind "php:8" is not one new nodejs:version`},
		"twice":          {strings.Replace(twoFamilies, `nodejs:18`, `nodejs:20`, 1), "not one new"},
		"no image":       {strings.Replace(twoFamilies, `"name":"python",`, ``, 1), "no image name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := whisk.ParseRuntimes([]byte(tt.doc))
			if !errors.Is(err, whisk.Invalid) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("ParseRuntimes error = %v, want Invalid with %q", err, tt.text)
			}
		})
	}
}

func FuzzParseRuntimes(f *testing.F) {
	f.Add([]byte(twoFamilies))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := whisk.ParseRuntimes(b)
		if err != nil {
			return
		}
		for _, e := range r.All() {
			if got, err := r.Find(e.Kind); err == nil && got.Kind != e.Kind {
				t.Fatalf("Find(%q) = %q", e.Kind, got.Kind)
			}
		}
	})
}
