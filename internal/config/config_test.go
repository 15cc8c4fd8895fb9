package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

// base is a configuration that does not depend on the machine of the test.
func base() Config {
	c := Dev()
	c.Data, c.Memory = "/data", 1<<30
	return c
}

func TestDefaultsAreValid(t *testing.T) {
	for name, c := range map[string]Config{"dev": Dev(), "serve": Serve()} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !c.Loopback() {
			t.Errorf("%s listens on %s, want this machine only", name, c.Listen)
		}
	}
	if Serve().Driver != Docker || Dev().Driver != Auto {
		t.Errorf("drivers = %s, %s; want auto for dev, docker for serve", Dev().Driver, Serve().Driver)
	}
}

func TestLoadPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	write(t, file, "listen: 127.0.0.1:1\nmemory: 1g # half\nlog-level: error\nallow-unsandboxed: true\nstem-cells: 0\n")
	c, err := Load(base(), Sources{
		File:    file,
		Environ: []string{"MILLRACE_LISTEN=127.0.0.1:2", "MILLRACE_MEMORY=2g", "HOME=/x", "MILLRACE_DATA=", "MILLRACE_SERVICE_HOST=10.0.0.1", "MILLRACE_PORT=tcp://10.0.0.1:1"},
		Flags:   map[string]string{"listen": "127.0.0.1:3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:3" || c.Memory != 2<<30 || c.LogLevel != "error" || !c.AllowUnsandboxed || c.StemCells != 0 {
		t.Errorf("Load = %+v; want the flag's listen, the environment's memory, the file's rest", c)
	}
	if c.Data != "/data" || c.Driver != Auto {
		t.Errorf("Load = %+v; want the defaults of what nobody set", c)
	}
}

func TestLoadFileFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.yaml")
	write(t, file, "# nothing but this\npublic-url: https://hooks.example.org/\n")
	c, err := Load(base(), Sources{Environ: []string{EnvConfig + "=" + file}})
	if err != nil {
		t.Fatal(err)
	}
	if c.PublicURL != "https://hooks.example.org" {
		t.Errorf("public-url = %q", c.PublicURL)
	}
}

// Every fault of every source must be told at once.
func TestLoadReportsEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.yaml")
	write(t, file, "listne: x\nmemory: lots\ndriver: [docker]\nlog-level: loud\nlog-level: info\ndata: ~\n")
	_, err := Load(base(), Sources{
		File:    file,
		Environ: []string{"MILLRACE_ROLES=api", "MILLRACE_STEM_CELLS=many", "MILLRACE_GUEST_KEY=hunter2"},
		Flags:   map[string]string{"listen": "here", "durability": "maybe", "allow-unsandboxed": "perhaps"},
	})
	if !errors.Is(err, whisk.Invalid) {
		t.Fatalf("Load error = %v, want %v", err, whisk.Invalid)
	}
	for _, want := range []string{
		"MILLRACE_ROLES: there is no such setting",
		`MILLRACE_STEM_CELLS: "many" is not a whole number`,
		"bad.yaml:1: listne: there is no such setting",
		`bad.yaml:2: memory: "lots" is not a size`,
		"bad.yaml:3: driver: one value is needed",
		"bad.yaml:5: log-level: given twice",
		"bad.yaml:6: data: one value is needed",
		`--allow-unsandboxed: "perhaps" is neither true nor false`,
		`listen: "here" is not host:port`,
		`durability: "maybe" is neither disk nor process`,
		`log-level: "loud" is none of`,
		"guest-key: not a key",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the key:\n%v", err)
	}
}

func TestLoadFiles(t *testing.T) {
	tests := []struct {
		name, yaml, want string // want: part of the error; empty: none
	}{
		{"empty", "", ""},
		{"comments", "# only\n", ""},
		{"null", "~\n", ""},
		{"list", "- a\n", "settings are lines of name: value"},
		{"two documents", "listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n", "more than one document"},
		{"broken", "listen: [\n", "m.yaml: yaml:"},
		{"nested", "listen:\n  host: x\n", "one value is needed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "m.yaml")
			write(t, file, tt.yaml)
			_, err := Load(base(), Sources{File: file})
			if got := err == nil; got != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load(%q) error = %v, want %q", tt.yaml, err, tt.want)
			}
		})
	}
	if _, err := Load(base(), Sources{File: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, whisk.Invalid) {
		t.Errorf("missing file: error = %v, want %v", err, whisk.Invalid)
	}
}

func TestValidate(t *testing.T) {
	key := "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:" + strings.Repeat("a", 64)
	tests := []struct {
		name string
		set  func(*Config)
		want string
	}{
		{"as it is", func(*Config) {}, ""},
		{"any port", func(c *Config) { c.Listen = ":0" }, ""},
		{"port name", func(c *Config) { c.Listen = "localhost:http" }, ""},
		{"port out of range", func(c *Config) { c.Listen = "localhost:70000" }, "listen:"},
		{"no port", func(c *Config) { c.Listen = "localhost" }, "listen:"},
		{"guest key", func(c *Config) { c.GuestKey = key }, ""},
		{"short guest key", func(c *Config) { c.GuestKey = key[:90] }, "guest-key:"},
		{"public url with path", func(c *Config) { c.PublicURL = "https://a.example/x" }, ""},
		{"public url with query", func(c *Config) { c.PublicURL = "https://a.example/?x=1" }, "public-url:"},
		{"public url of a file", func(c *Config) { c.PublicURL = "file:///etc" }, "public-url:"},
		{"little memory", func(c *Config) { c.Memory = 1 << 20 }, "memory: 1m is less than one container (128m)"},
		{"many stem cells", func(c *Config) { c.StemCells = 17 }, "stem-cells:"},
		{"driver", func(c *Config) { c.Driver = "vm" }, "driver:"},
		{"log format", func(c *Config) { c.LogFormat = "xml" }, "log-format:"},
		{"no data", func(c *Config) { c.Data = "" }, "data:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := base()
			tt.set(&c)
			err := c.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestExposed(t *testing.T) {
	tests := []struct {
		listen           string
		sandboxed, allow bool
		ok               bool
	}{
		{"127.0.0.1:1", false, false, true},
		{"[::1]:1", false, false, true},
		{"localhost:1", false, false, true},
		{"0.0.0.0:1", false, false, false},
		{":1", false, false, false},
		{"example.org:1", false, false, false},
		{":1", true, false, true},
		{":1", false, true, true},
	}
	for _, tt := range tests {
		c := base()
		c.Listen, c.AllowUnsandboxed = tt.listen, tt.allow
		err := c.Exposed(tt.sandboxed)
		if (err == nil) != tt.ok {
			t.Errorf("%s sandboxed=%t allow=%t: Exposed = %v, want ok %t", tt.listen, tt.sandboxed, tt.allow, err, tt.ok)
		}
		if err != nil && whisk.HintOf(err) == "" {
			t.Errorf("%s: the refusal has no remedy", tt.listen)
		}
	}
}

// Every setting can be set from its own text, and that text is the same again.
func TestFieldsRoundTrip(t *testing.T) {
	c := base()
	c.PublicURL, c.Runtimes = "http://a", "/r.json"
	for _, f := range Fields() {
		var to Config
		if err := f.Set(&to, f.Get(c)); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if got, want := f.Get(to), f.Get(c); got != want {
			t.Errorf("%s: got %q, want %q", f.Name, got, want)
		}
		if f.Usage == "" || f.Value == "" {
			t.Errorf("%s is not documented", f.Name)
		}
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64 // -1: refused
	}{
		{"0", 0},
		{"123", 123},
		{"512m", 512 << 20},
		{"2G", 2 << 30},
		{"2 GiB", 2 << 30},
		{"1tb", 1 << 40},
		{"64k", 64 << 10},
		{"", -1},
		{"m", -1},
		{"-1", -1},
		{"1.5g", -1},
		{"9999999t", -1},
		{"half", -1},
	}
	for _, tt := range tests {
		got := int64(-1)
		if err := setSize(&got, tt.in); err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("setSize(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}

func TestMemTotal(t *testing.T) {
	if got := memTotal("MemFree: 1 kB\nMemTotal:       4096 kB\n"); got != 4096<<10 {
		t.Errorf("memTotal = %d, want %d", got, 4096<<10)
	}
	if m := machineMemory(); m <= 0 {
		t.Errorf("machineMemory() = %d", m)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"1", "2g", "3 MiB", "9223372036854775807", "8388608t", "k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n, again int64
		if setSize(&n, s) != nil {
			return
		}
		if n < 0 {
			t.Fatalf("setSize(%q) = %d", s, n)
		}
		if err := setSize(&again, Size(n).String()); err != nil || again != n {
			t.Fatalf("%q is %d, shown as %q, read as %d, %v", s, n, Size(n), again, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add("listen: 127.0.0.1:1\n")
	f.Add("a: [b, {c: d}]\n---\n")
	f.Add("&x listen: *x\n")
	known := map[string]Field{}
	for _, fl := range Fields() {
		known[fl.Name] = fl
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := 0
		errs := readYAML("f", strings.NewReader(s), known, func(string, Field, string) { n++ })
		if n > len(known) {
			t.Fatalf("%d settings from %q", n, s)
		}
		for _, err := range errs {
			if err.Error() == "" {
				t.Fatalf("an error without text from %q", s)
			}
		}
	})
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
