package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/docker/docker/api/types/network"
)

// bridge is the network that containers of our launchers are on.
const bridge = "bridge"

// Address returns the address at which containers reach this machine, or the
// container that this program itself runs in, with the network that they come
// from. It is an error when this machine has no part in that network, as with
// a daemon elsewhere.
func (d *Driver) Address(ctx context.Context) (netip.Prefix, error) {
	n, err := d.api.NetworkInspect(ctx, bridge, network.InspectOptions{})
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("look at the network of containers: %w", err)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("look at the addresses of this machine: %w", err)
	}
	// The address of this machine within the subnet, and not the gateway that
	// Docker names: a server that is in a container itself is not the gateway.
	for _, c := range n.IPAM.Config {
		subnet, err := netip.ParsePrefix(c.Subnet)
		if err != nil {
			continue
		}
		for _, a := range own {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && subnet.Contains(p.Addr()) {
				return netip.PrefixFrom(p.Addr(), subnet.Bits()), nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("this machine has no address on Docker's network %q", bridge)
}
