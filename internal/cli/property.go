package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
)

// propertyCommand works with the properties file that wsk and millrace share.
func (a *app) propertyCommand() *cobra.Command {
	return a.noun("property", "work with whisk properties", a.propertySet(), a.propertyUnset(), a.propertyGet())
}

// property is one line of the properties file as the commands show it.
type property struct {
	flag, key, shown string
	tabs             string // between name and value, as wsk has them
	value            func(client.Endpoint) string
}

// properties are those that can be set; the order is that of 'property get'.
func properties() []property {
	return []property{
		{"apihost", "APIHOST", "whisk API host", "\t\t", func(e client.Endpoint) string { return e.Host }},
		{"auth", "AUTH", "whisk auth", "\t\t", func(e client.Endpoint) string { return e.Auth }},
		// What has no key in the file is asked of the server, or is our own.
		{"namespace", "", "whisk namespace", "\t\t", nil},
		{"cert", "CERT", "client cert", "\t\t", func(e client.Endpoint) string { return e.Cert }},
		{"key", "KEY", "Client key", "\t\t", func(e client.Endpoint) string { return e.CertKey }},
		{"apiversion", "APIVERSION", "whisk API version", "\t", func(e client.Endpoint) string { return e.APIVersion }},
		{"cliversion", "", "whisk CLI version", "\t", nil},
		{"apibuild", "", "whisk API build", "\t\t", nil},
		{"apibuildno", "", "whisk API build number", "\t", nil},
	}
}

// propertySet is the command that writes to the properties file what the global
// flags say. It asks no server.
func (a *app) propertySet() *cobra.Command {
	return a.verb(verb{
		use: "set", short: "set property", need: "No arguments are required.",
		run: func(context.Context, []string) error {
			return a.changeProperties(func(props map[string]string) ([]string, error) {
				var done []string
				tell := func(format string, args ...any) { done = append(done, fmt.Sprintf(format, args...)) }
				if v := a.set.Cert; v != "" {
					props["CERT"] = v
					tell("client cert set. Run 'millrace property get --cert' to see the new value.")
				}
				if v := a.set.CertKey; v != "" {
					props["KEY"] = v
					tell("client key set. Run 'millrace property get --key' to see the new value.")
				}
				if v := a.set.Auth; v != "" {
					props["AUTH"] = v
					tell("whisk auth set. Run 'millrace property get --auth' to see the new value.")
				}
				if v := a.set.Host; v != "" {
					// An address that no client could use is not written:
					// every later command would fail for it.
					if _, err := (client.Endpoint{Host: v, HostFrom: "--apihost"}).URL(); err != nil {
						return nil, a.because(err, "Unable to set API host value; the API host value '%s' is invalid", v)
					}
					props["APIHOST"] = v
					tell("whisk API host set to %s", a.bold(v))
				}
				if v := a.set.APIVersion; v != "" {
					props["APIVERSION"] = v
					tell("whisk API version set to %s", a.bold(v))
				}
				if len(done) == 0 {
					return nil, a.usage("nothing to set")
				}
				return done, nil
			})
		},
	})
}

// propertyUnset is the command that removes lines of the properties file.
func (a *app) propertyUnset() *cobra.Command {
	gone := map[string]*bool{}
	return a.verb(verb{
		use: "unset", short: "unset property", need: "No arguments are required.",
		flags: func(c *cobra.Command) {
			for _, p := range properties() {
				if p.key != "" {
					gone[p.flag] = c.Flags().Bool(p.flag, false, p.shown)
				}
			}
		},
		run: func(context.Context, []string) error {
			return a.changeProperties(func(props map[string]string) ([]string, error) {
				texts := map[string]string{
					"cert": "client cert unset.", "key": "client key unset.", "auth": "whisk auth unset.", "apihost": "whisk API host unset.",
					"apiversion": fmt.Sprintf("whisk API version unset; the default value of %s will be used.", a.bold(client.DefaultVersion)),
				}
				var done []string
				for _, p := range properties() {
					if g := gone[p.flag]; g != nil && *g {
						delete(props, p.key)
						done = append(done, texts[p.flag])
					}
				}
				if len(done) == 0 {
					return nil, a.usage("nothing to unset")
				}
				return done, nil
			})
		},
	})
}

// changeProperties lets change loose on what the properties file says, writes
// it back and tells what was done.
func (a *app) changeProperties(change func(map[string]string) ([]string, error)) error {
	file := client.Files(a.sys.getenv, a.sys.Home, a.defaultData())[0]
	props, err := client.ReadProps(file)
	if err != nil {
		return &failure{text: fmt.Sprintf("Unable to read the properties file '%s': %v", file, err), exit: exitGeneral, hint: "make it readable for this user, or name another with WSK_CONFIG_FILE"}
	}
	done, err := change(props)
	if err != nil {
		return err
	}
	if err := client.WriteProps(file, props); err != nil {
		return &failure{text: fmt.Sprintf("Unable to set the property value(s): %v", err), exit: exitGeneral, hint: "make the folder writable for this user, or name another file with WSK_CONFIG_FILE"}
	}
	a.warnOfProperties(file, props)
	if a.json() {
		return a.printJSON(map[string]any{"file": file, "done": done})
	}
	for _, line := range done {
		a.okLine(a.sys.Out, "%s", line)
	}
	return nil
}

// warnOfProperties tells when what a properties file says is not in effect: a
// file without a key is passed over, and the environment wins over any.
func (a *app) warnOfProperties(file string, props map[string]string) {
	at, err := client.Discover(client.Settings{}, a.sys.getenv, a.sys.Home, a.defaultData())
	if err != nil || len(props) == 0 {
		return
	}
	host, key := props["APIHOST"], props["AUTH"]
	used := key != "" || host != "" && a.sys.getenv("WHISK_AUTH") != ""
	switch {
	case !used && at.AuthFrom == "nowhere":
		a.warn("'%s' is not in effect: it holds no key; 'millrace property set --auth KEY' adds one", file)
	case !used:
		a.warn("'%s' is not in effect: it holds no key, so the API host is %s (from %s) and the key that of %s; 'millrace property set --auth KEY' adds one", file, at.Host, at.HostFrom, at.AuthFrom)
	case host != "" && at.Host != host:
		a.warn("the API host in effect is %s (from %s)", at.Host, at.HostFrom)
	}
	if key != "" && at.Auth != key {
		a.warn("the key in effect is that of %s", at.AuthFrom)
	}
}

// propertyGet is the command that shows settings as the next command would use
// them, whichever source they are from.
func (a *app) propertyGet() *cobra.Command {
	wanted := map[string]*bool{}
	var all bool
	var output string
	return a.verb(verb{
		use: "get", short: "get property", need: "No arguments are required.", noOutput: true,
		flags: func(c *cobra.Command) {
			for _, p := range properties() {
				wanted[p.flag] = c.Flags().Bool(p.flag, false, p.shown)
			}
			c.Flags().BoolVar(&all, "all", false, "all properties")
			c.Flags().StringVarP(&output, "output", "o", "std", "Output `FORMAT` in std|raw|json")
		},
		run: func(ctx context.Context, _ []string) error {
			var list []property
			for _, p := range properties() {
				if *wanted[p.flag] {
					list = append(list, p)
				}
			}
			if all || len(list) == 0 {
				all, list = true, properties()
			}
			switch {
			case output != "std" && output != "raw" && output != "json":
				return a.usage("Supported output format are std|raw|json")
			case output == "raw" && all:
				return a.usage("--output|-o raw only supported with specific property type")
			}
			return a.showProperties(ctx, list, output)
		},
	})
}

// showProperties prints properties, asking the server for those that it knows.
func (a *app) showProperties(ctx context.Context, list []property, output string) error {
	at, err := a.endpoint()
	if err != nil {
		return err
	}
	// A property that cannot be had is shown as Unknown and makes the command
	// fail at its end, so that the others are shown.
	var failed error
	values := map[string]string{}
	for _, p := range list {
		v, err := a.property(ctx, at, p)
		if err != nil && failed == nil {
			failed = err
		}
		values[p.flag] = v
		switch output {
		case "std":
			a.print("%s%s%s\n", p.shown, p.tabs, a.bold(v))
		case "raw":
			a.print("%s\n", a.bold(v))
		}
	}
	if output == "json" {
		if err := a.printJSON(values); err != nil {
			return err
		}
	}
	return a.because(failed, "Unable to obtain API build information")
}

// property returns the value of one property. Only the build needs an answer
// of the server: the namespace is shown as _ without one, as wsk does.
func (a *app) property(ctx context.Context, at client.Endpoint, p property) (string, error) {
	switch p.flag {
	case "cliversion":
		return a.sys.Version, nil
	case "namespace":
		c, err := a.clientFor(at)
		if err != nil {
			return at.Namespace, nil
		}
		if list, err := c.Namespaces(ctx); err == nil && len(list) > 0 {
			return list[0], nil
		}
		return at.Namespace, nil
	case "apibuild", "apibuildno":
		c, err := a.clientFor(at)
		if err != nil {
			return "Unknown", err
		}
		info, err := c.Info(ctx)
		switch {
		case err != nil:
			return "Unknown", err
		case p.flag == "apibuild":
			return info.Build, nil
		}
		return info.BuildNo, nil
	}
	return p.value(at), nil
}
