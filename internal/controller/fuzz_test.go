package controller

import (
	"net/url"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		"/api/v1/namespaces/_/actions/../../guest/actions/p/f": "/api/v1/namespaces/guest/actions/p/f",
		"/a/./b":        "/a/b",
		"/a/b/.":        "/a/b/",
		"/a/b/..":       "/a/",
		"/../../a":      "/a",
		"/..":           "/",
		"/a/%2e%2E/b":   "/b",
		"/a//../b":      "/a/b",
		"/a/...":        "/a/...",
		"/a/.b":         "/a/.b",
		"/a//b/":        "/a//b/",
		"/a%2Fb/..%2Fc": "/a%2Fb/..%2Fc",
		"*":             "*",
		"":              "",
	} {
		if got := cleanPath(in); got != want {
			t.Errorf("cleanPath(%q) = %q, want %q", in, got, want)
		}
	}
}

// A clean path has no dot segments, stays below the root, and is clean already.
func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/x", "//..//.", "/a/./", "*", "/%2", "/.%2e/..%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := cleanPath(path)
		if again := cleanPath(got); again != got {
			t.Errorf("cleanPath(%q) = %q, and again %q", path, got, again)
		}
		if !strings.HasPrefix(path, "/") {
			return
		}
		if !strings.HasPrefix(got, "/") {
			t.Errorf("cleanPath(%q) = %q, which has no root", path, got)
		}
		for s := range strings.SplitSeq(got, "/") {
			if u, err := url.PathUnescape(s); err == nil && (u == "." || u == "..") {
				t.Errorf("cleanPath(%q) = %q, which has dot segments", path, got)
			}
		}
	})
}

func TestParseWebPath(t *testing.T) {
	for in, want := range map[string]webPath{
		"guest/default/a":           {whisk.Name{Namespace: "guest", Entity: "a"}, ".http", ""},
		"guest/pk/a.json":           {whisk.Name{Namespace: "guest", Package: "pk", Entity: "a"}, ".json", ""},
		"guest/pk/a.foo":            {whisk.Name{Namespace: "guest", Package: "pk", Entity: "a.foo"}, ".http", ""},
		"guest/pk/a.json.http/":     {whisk.Name{Namespace: "guest", Package: "pk", Entity: "a.json"}, ".http", "/"},
		"guest/p%20k/a%20b.svg/x/y": {whisk.Name{Namespace: "guest", Package: "p k", Entity: "a b"}, ".svg", "/x/y"},
		"guest/pk/a/x%20y/z":        {whisk.Name{Namespace: "guest", Package: "pk", Entity: "a"}, ".http", "/x%20y/z"},
	} {
		if got, ok := parseWebPath(in); !ok || got != want {
			t.Errorf("parseWebPath(%q) = %+v, %v, want %+v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "guest", "guest/pk", "guest/pk/", "//a", "guest/pk/%zz"} {
		if got, ok := parseWebPath(in); ok {
			t.Errorf("parseWebPath(%q) = %+v, want none", in, got)
		}
	}
}

// What was read off a path can be put together again.
func FuzzParseWebPath(f *testing.F) {
	for _, s := range []string{"guest/default/a.json", "a/b/c/d", "a/b/.http", "%20/%2f/%ff.text/rest", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		at, ok := parseWebPath(path)
		if !ok {
			return
		}
		pkg := at.action.Package
		if pkg == "" {
			pkg = whisk.DefaultPackage
		}
		built := url.PathEscape(at.action.Namespace) + "/" + url.PathEscape(pkg) + "/" + url.PathEscape(at.action.Entity+at.extension) + at.rest
		if again, ok := parseWebPath(built); !ok || again != at {
			t.Errorf("parseWebPath(%q) = %+v; of %q %+v, %v", path, at, built, again, ok)
		}
	})
}

// Whatever a list is asked for, its page is within bounds or refused as
// invalid.
func FuzzListParameters(f *testing.F) {
	for _, s := range []string{"limit=0&skip=0", "limit=200", "limit=-1", "skip=99999999999", "count=TRUE", "name=a/b&since=1&upto=x", "limit=1&limit=2", "timeout=60000", "%zz;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil && q == nil {
			return
		}
		p, err := queryPage(q, auth.Rules)
		if err == nil && (p.limit < 1 || p.limit > whisk.MaxListLimit || p.skip < 0) {
			t.Errorf("queryPage(%q) = %+v", query, p)
		}
		_, err2 := queryName(q)
		_, err3 := queryTime(q, "since")
		wait, err4 := queryWait(q)
		if err4 == nil && (wait <= 0 || wait > whisk.MaxWait) {
			t.Errorf("queryWait(%q) = %v", query, wait)
		}
		for _, err := range []error{err, err2, err3, err4} {
			if err != nil && whisk.KindOf(err) != whisk.Invalid {
				t.Errorf("%q is refused with %v", query, err)
			}
		}
	})
}

// A reference that is taken is a name that may exist.
func FuzzReference(f *testing.F) {
	for _, s := range []string{`"/_/a"`, `"/ns/p/a"`, `{"path":"_","name":"a"}`, `{"path":"a/b","name":"c"}`, `"a"`, `null`, `1`, `{"path":1}`, `"//a"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		n, ok, err := members{"trigger": []byte(raw)}.name("trigger", "guest")
		switch {
		case err != nil:
			if whisk.KindOf(err) != whisk.Invalid {
				t.Errorf("%q is refused with %v", raw, err)
			}
		case ok:
			if again, err := whisk.ParseName(n.String(), "guest"); err != nil || again != n {
				t.Errorf("%q is %v, which is %v, %v", raw, n, again, err)
			}
		}
	})
}
