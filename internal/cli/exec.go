package cli

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// languages are the families of kinds that an extension stands for.
var languages = []struct{ ext, family string }{
	{".js", "nodejs"},
	{".py", "python"},
	{".swift", "swift"},
	{".jar", "java"},
	{".php", "php"},
	{".rb", "ruby"},
	{".rs", "rust"},
	{".go", "go"},
	{".balx", "ballerina"},
}

const (
	zipExt     = ".zip"
	nativeKind = "native:1"
)

// extensionOf returns the extension that code of a kind is saved with.
func extensionOf(kind string, binary bool) string {
	family, _, _ := strings.Cut(kind, ":")
	for _, l := range languages {
		packed := l.ext == ".jar" || l.ext == ".balx"
		if l.family == family && packed == binary {
			return l.ext
		}
	}
	if binary {
		return zipExt
	}
	return ""
}

// execOf makes the exec of a file, an image or both. Archives and programs
// travel as base64, text as it is.
func (a *app) execOf(files []string, f *actionFlags) (*client.Exec, error) {
	e := &client.Exec{Main: f.main}
	ext := ""
	if len(files) > 0 {
		ext = strings.ToLower(filepath.Ext(files[0]))
		b, err := readFile(files[0])
		if err != nil {
			return nil, err
		}
		code := string(b)
		// By the extension, or by what no text holds: an archive may happen to
		// be valid UTF-8.
		if ext == zipExt || ext == ".jar" || ext == ".balx" || !utf8.Valid(b) || strings.ContainsRune(code, 0) {
			code = base64.StdEncoding.EncodeToString(b)
		}
		e.Code = &code
	}
	kind, err := a.kindOf(ext, f)
	if err != nil {
		return nil, err
	}
	e.Kind = kind
	if kind == whisk.KindBlackbox {
		e.Image = f.docker
	}
	// A jar has no class that is the entry point by its name.
	if family, _, _ := strings.Cut(kind, ":"); family == "java" && e.Main == "" {
		return nil, a.misuse(exitUsage, "Java actions require --main to specify the fully-qualified name of the main class")
	}
	return e, nil
}

// kindOf returns the kind that was asked for or that the extension stands for.
func (a *app) kindOf(ext string, f *actionFlags) (string, error) {
	switch {
	case f.kind != "":
		return f.kind, nil
	case f.docker != "":
		return whisk.KindBlackbox, nil
	case f.native:
		return nativeKind, nil
	// An archive tells nothing of its language.
	case ext == zipExt:
		return "", a.misuse(exitUsage, "creating an action from a .zip artifact requires specifying the action kind explicitly")
	}
	for _, l := range languages {
		if l.ext == ext {
			return l.family + ":default", nil
		}
	}
	return "", &failure{
		text: fmt.Sprintf("'%s' is not a supported action runtime", ext), exit: exitUsage,
		hint: "name the kind with --kind, or use --native for a shell script or program, --docker for an image",
	}
}

// Annotations that make a web action.
const (
	annotWeb    = "web-export"
	annotRaw    = "raw-http"
	annotFinal  = "final"
	annotSecure = "require-whisk-auth"
)

// webAnnotations sets what --web and --web-secure ask for. An update without
// annotations of its own keeps those of the existing action.
func (a *app) webAnnotations(act, existing *client.Action, f *actionFlags) error {
	own := act.Annotations != nil
	// Keep takes over those of the existing annotations (all, without keys)
	// that the command line does not set. A PUT replaces annotations as a
	// whole.
	keep := func(keys ...string) {
		if existing == nil {
			return
		}
		for _, e := range existing.Annotations {
			if len(keys) == 0 || slices.Contains(keys, e.Key) {
				if act.Annotations.Get(e.Key) == nil {
					act.Annotations = act.Annotations.With(e)
				}
			}
		}
	}
	if f.changed("web") {
		web, raw, err := a.webMode(f.web)
		if err != nil {
			return err
		}
		if !own {
			keep()
		}
		keep(annotSecure)
		act.Annotations = act.Annotations.
			Set(annotWeb, fmt.Sprint(web)).Set(annotRaw, fmt.Sprint(raw)).Set(annotFinal, fmt.Sprint(web))
	}
	if !f.changed("web-secure") {
		return nil
	}
	// What this command sets counts before what the action has.
	isWeb := string(act.Annotations.Get(annotWeb)) == "true"
	if !f.changed("web") && existing != nil && !isWeb {
		isWeb = string(existing.Annotations.Get(annotWeb)) == "true"
	}
	if !isWeb {
		return a.misuse(exitUsage, "The --web-secure option is only valid when the --web option is enabled.")
	}
	if own {
		keep(annotWeb, annotRaw, annotFinal, annotSecure)
	} else {
		keep()
	}
	return setSecret(act, f.webSecure)
}

// webMode reads the value of --web.
func (a *app) webMode(mode string) (web, raw bool, err error) {
	switch strings.ToLower(mode) {
	case "yes", "true":
		return true, false, nil
	case "raw":
		return true, true, nil
	case "no", "false":
		return false, false, nil
	}
	return false, false, a.misuse(exitUsage, fmt.Sprintf("Invalid argument '%s' for --web flag. Valid input consist of 'yes', 'true', 'raw', 'false', or 'no'.", mode))
}

// maxSecret bounds the secret that is made: JavaScript must hold it exactly.
const maxSecret = 1<<53 - 1

// setSecret sets or removes what callers of a web action must know. A secret
// that was made before is kept when one is to be made.
func setSecret(act *client.Action, value string) error {
	old := act.Annotations.Get(annotSecure)
	switch strings.ToLower(value) {
	// Of annotations that are kept by the server it must be asked to be
	// removed; of those that are sent it is left out.
	case "false":
		if old != nil {
			act.DelAnnotations = append(act.DelAnnotations, annotSecure)
			act.Annotations = act.Annotations.Without(annotSecure)
		}
		return nil
	case "true":
		// Only a number was made here. A text is a secret that somebody chose,
		// and is replaced by one that is made.
		var n json.Number
		if json.Unmarshal(old, &n) == nil && old != nil && old[0] != '"' {
			return nil
		}
		made, err := rand.Int(rand.Reader, big.NewInt(maxSecret))
		if err != nil {
			return err
		}
		act.Annotations = act.Annotations.Set(annotSecure, made.String())
		return nil
	}
	act.Annotations = act.Annotations.Set(annotSecure, string(quote(value)))
	return nil
}
