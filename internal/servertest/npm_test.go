package servertest_test

import (
	"archive/zip"
	"bytes"
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/servertest"
)

// npmClient is OpenWhisk's client for Node, as its users install it.
const npmClient = "openwhisk@3.21.9"

// TestNpmClient uses OpenWhisk's own client for Node, unchanged, over all of
// its resources and inside an action. It needs Node, npm and, once, the
// network.
func TestNpmClient(t *testing.T) {
	modules := installNpm(t, npmClient)
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) { npmClientOn(t, driver, modules) })
	}
}

func npmClientOn(t *testing.T, driver, modules string) {
	t.Helper()
	p := newProcess(t, driver)
	p.Start()
	inner := map[string]string{"index.js": sdkAction}
	if err := addFolder(inner, "node_modules", modules); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/openwhisk/client.js", zipAction(t, map[string]string{
		"__main__.py": "from inner import wrap\ndef main(args):\n    return wrap(args)\n",
		"inner.py":    "def wrap(args):\n    return {'zipped': args}\n",
	}), zipAction(t, inner))
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "__OW_API_HOST="+p.URL, "__OW_API_KEY="+p.Auth,
		// The client would speak to the loopback through a proxy, too.
		"PROXY=", "HTTP_PROXY=", "HTTPS_PROXY=", "proxy=", "http_proxy=", "https_proxy=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the client failed: %v\n%s", err, out)
	}
	// A script that ends early, or of which a step was lost, shows nothing.
	if n := strings.Count(string(out), "ok "); n < 40 {
		t.Fatalf("only %d steps were taken:\n%s", n, out)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// installNpm puts a package of npm into the project's cache, unless it is
// there, and returns the folder that programs of Node find it in. What can't be
// had skips the test on a person's machine, and fails it in CI.
func installNpm(t *testing.T, spec string) string {
	t.Helper()
	cache := cmp.Or(os.Getenv("TEST_CACHE"), ".cache")
	if !filepath.IsAbs(cache) {
		cache = filepath.Join("../..", cache) // as .ci/test means it
	}
	dir, err := filepath.Abs(filepath.Join(cache, "npm", spec))
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(dir, "node_modules")
	name := spec[:strings.LastIndex(spec, "@")] // it may begin with one
	if _, err := os.Stat(filepath.Join(modules, name, "package.json")); err == nil {
		return modules
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	// Whole or not at all: an install that broke off must not be taken for one.
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	args := []string{"install", "--prefix", fresh, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", spec}
	must := os.Getenv("CI") == "true"
	if !must {
		args = append(args, "--fetch-retries=0") // without a network npm would wait for minutes
	}
	if out, err := exec.CommandContext(t.Context(), "npm", args...).CombinedOutput(); err != nil {
		if !must {
			t.Skipf("%s can't be installed: %v\n%s", spec, err, out)
		}
		t.Fatalf("install %s: %v\n%s", spec, err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	return modules
}

// sdkAction is an action that uses the client in turn: it finds host and key in
// its environment.
const sdkAction = `exports.main = async args => {
  const ow = require('openwhisk')()
  const actions = await ow.actions.list()
  const greeting = await ow.actions.invoke({ name: args.call, blocking: true, result: true, params: { name: 'the action' } })
  return { mine: actions.some(a => a.name === args.call), greeting }
}
`

// addFolder adds the files below a folder to those of an archive.
func addFolder(files map[string]string, as, dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		files[filepath.ToSlash(filepath.Join(as, rel))] = string(b)
		return err
	})
}

// zipAction writes an archive with the files of an action and returns its path.
func zipAction(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "action.zip")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
