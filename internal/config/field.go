package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Field is one setting: its name, what it is for, and how it is read from and
// shown as text. Flags, environment, file and documentation all come from it.
// What Get shows, Set takes.
type Field struct {
	Name  string // as on the command line and in the file
	Value string // what the value is, in a word: for help texts
	Usage string
	// Switch says that the flag needs no value: its presence means true.
	Switch bool
	Secret bool // not a flag: other users of the machine can see flags
	Get    func(Config) string
	Set    func(*Config, string) error
}

// Env returns the name of the environment variable that sets f.
func (f Field) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// Fields returns every setting, in the order in which they are documented.
func Fields() []Field {
	return []Field{
		text("listen", "HOST:PORT", "where the API listens", func(c *Config) *string { return &c.Listen }),
		path("data", "DIR", "folder of everything the server keeps", func(c *Config) *string { return &c.Data }),
		{
			Name: "public-url", Value: "URL", Usage: "how the outside reaches the server, for the addresses of webhooks (default: the listener's address)",
			Get: func(c Config) string { return c.PublicURL },
			Set: func(c *Config, s string) error { c.PublicURL = strings.TrimRight(s, "/"); return nil },
		},
		{
			Name: "driver", Value: "DRIVER", Usage: "what actions run in: auto, docker or process",
			Get: func(c Config) string { return string(c.Driver) },
			Set: func(c *Config, s string) error { c.Driver = Driver(s); return nil },
		},
		{
			Name: "memory", Value: "SIZE", Usage: "memory for all containers together, as in 512m or 2g (default: half of the machine's)",
			Get: func(c Config) string { return Size(c.Memory).String() },
			Set: func(c *Config, s string) error { return setSize(&c.Memory, s) },
		},
		{
			Name: "stem-cells", Value: "N", Usage: "containers of each default kind kept started without code",
			Get: func(c Config) string { return strconv.Itoa(c.StemCells) },
			Set: func(c *Config, s string) error { return setInt(&c.StemCells, s) },
		},
		path("runtimes", "FILE", "runtimes.json that says which kinds of actions there are (default: the built-in ones)", func(c *Config) *string { return &c.Runtimes }),
		{
			Name: "durability", Value: "HOW", Usage: "what an accepted event survives: disk (power loss) or process (kill -9 alone)",
			Get: func(c Config) string { return string(c.Durability) },
			Set: func(c *Config, s string) error { c.Durability = Durability(s); return nil },
		},
		{
			Name: "guest-key", Value: "UUID:KEY", Usage: "key that namespace guest gets (default: made at the first start)", Secret: true,
			Get: func(c Config) string { return c.GuestKey },
			Set: func(c *Config, s string) error { c.GuestKey = s; return nil },
		},
		{
			Name: "allow-unsandboxed", Value: "BOOL", Usage: "listen beyond this machine although actions run unsandboxed", Switch: true,
			Get: func(c Config) string { return strconv.FormatBool(c.AllowUnsandboxed) },
			Set: func(c *Config, s string) error { return setBool(&c.AllowUnsandboxed, s) },
		},
		text("log-format", "FORMAT", "text or json", func(c *Config) *string { return &c.LogFormat }),
		text("log-level", "LEVEL", "debug, info, warn or error", func(c *Config) *string { return &c.LogLevel }),
	}
}

// text is a setting that is kept as it is written.
func text(name, value, usage string, at func(*Config) *string) Field {
	return Field{
		Name: name, Value: value, Usage: usage,
		Get: func(c Config) string { return *at(&c) },
		Set: func(c *Config, s string) error { *at(c) = s; return nil },
	}
}

// path is text that names a file: it is made absolute, so that it means the
// same whatever the working folder becomes.
func path(name, value, usage string, at func(*Config) *string) Field {
	f := text(name, value, usage, at)
	f.Set = func(c *Config, s string) error {
		// Empty stands for the default and must not become the working folder.
		if s == "" {
			*at(c) = ""
			return nil
		}
		abs, err := filepath.Abs(s)
		if err != nil {
			return err
		}
		*at(c) = abs
		return nil
	}
	return f
}

func setInt(to *int, s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	*to = n
	return nil
}

// setBool takes the words that YAML 1.1 and environments use for either value.
func setBool(to *bool, s string) error {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		*to = true
	case "false", "no", "off", "0":
		*to = false
	default:
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}
