package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/whisk"
)

// A start tells when commands in other terminals would call another server, or
// this one with another key, and how to reach it.
func TestStartTellsOfOtherProperties(t *testing.T) {
	const url, export = "http://localhost:3233", "  export WSK_CONFIG_FILE="
	ours := "AUTH=" + testKey + "\nAPIHOST=" + url + "\n"
	for name, tt := range map[string]struct {
		wskprops string // in the home folder
		environ  []string
		folder   string // of the data, in the home folder
		want     string // before the remedy; empty for no line at all
	}{
		"none":            {folder: ".millrace"},
		"the same":        {wskprops: ours, folder: ".millrace"},
		"by number":       {wskprops: "AUTH=" + testKey + "\nAPIHOST=http://127.0.0.1:3233\n", folder: ".millrace"},
		"no key":          {wskprops: "APIHOST=https://far.example\n", folder: ".millrace"},
		"another folder":  {folder: "data", want: "For millrace and wsk in other terminals:\n"},
		"another host":    {wskprops: "AUTH=" + testKey + "\nAPIHOST=https://far.example\n", folder: ".millrace", want: "call https://far.example (from HOME/.wskprops);\nfor this server:\n"},
		"another key":     {wskprops: "AUTH=a:b\nAPIHOST=" + url + "\n", folder: ".millrace", want: "use the key in HOME/.wskprops, which is not that of this server's guest;\nfor this server:\n"},
		"an empty file":   {environ: []string{"WSK_CONFIG_FILE=HOME/nosuch"}, folder: ".millrace", want: "For millrace and wsk in other terminals:\n"},
		"the environment": {environ: []string{"WHISK_APIHOST=http://far.example"}, folder: ".millrace", want: "call http://far.example (from WHISK_APIHOST);\nfor this server, unset WHISK_AUTH and WHISK_APIHOST, and:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			data := filepath.Join(home, tt.folder)
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{filepath.Join(data, "wskprops"): ours, filepath.Join(home, ".wskprops"): tt.wskprops} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for i, e := range tt.environ {
				tt.environ[i] = strings.ReplaceAll(e, "HOME", home)
			}
			var out lockedBuffer
			a := &app{sys: System{Out: &out, Home: home, Environ: tt.environ}}
			a.announce(&out, Ready{URL: url, Data: data})
			got := strings.ReplaceAll(out.String(), home, "HOME")
			if told := strings.Contains(got, export); told != (tt.want != "") || !strings.Contains(got, tt.want) {
				t.Errorf("it tells:\n%s\nwant %q", got, tt.want)
			}
			if tt.want != "" && !strings.HasSuffix(got, export+"HOME/"+tt.folder+"/wskprops\n") {
				t.Errorf("the remedy lacks the file:\n%s", got)
			}
		})
	}
}

// Where the port is taken, the start names the command for the next one.
func TestStartNamesAnotherPort(t *testing.T) {
	taken := whisk.WithHint(whisk.E(whisk.Conflict, "", fmt.Errorf("in use: %w", syscall.EADDRINUSE)), "the server's own")
	for name, tt := range map[string]struct {
		args []string
		err  error
		want string
	}{
		"dev":        {[]string{"dev", "--try"}, taken, "stop that program, or take another port: 'bin/millrace dev --try --listen 127.0.0.1:3234'"},
		"try":        {[]string{"try", "--listen", "[::1]:80"}, taken, "stop that program, or take another port: 'bin/millrace try --listen [::1]:81'"},
		"serve":      {[]string{"serve"}, taken, "stop that program, or take another port: 'bin/millrace serve --listen 127.0.0.1:3234'"},
		"the last":   {[]string{"dev", "--listen", "127.0.0.1:65535"}, taken, "the server's own"},
		"a conflict": {[]string{"dev"}, whisk.WithHint(whisk.E(whisk.Conflict, "", os.ErrExist), "the server's own"), "the server's own"},
		"no remedy":  {[]string{"dev"}, os.ErrExist, "'millrace doctor' looks for what is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs lockedBuffer
			sys := System{Out: &out, Err: &errs, Home: t.TempDir(), Program: "bin/millrace"}
			start := func(context.Context, config.Config, func(Ready)) error { return tt.err }
			if code := Main(t.Context(), sys, tt.args, start); code == 0 || !strings.HasSuffix(errs.String(), "\nhint: "+tt.want+"\n") {
				t.Errorf("ended with %d: %s\nwant the hint %s", code, errs.String(), tt.want)
			}
		})
	}
}
