/**
 * A stand-in for a machine outside: a namespace that is joined to the host by a veth pair of its own, so that
 * its packets are forwarded, translated and filtered like those that come in by an uplink. It has no name,
 * and disappears with everything in it when its helper ends.
 */

import { Address, type Family, Prefix } from '../../lib/ip.ts';
import { addAddress } from '../../lib/kernel/address.ts';
import { createLink, deleteLink, getLink, requireLink, setLink } from '../../lib/kernel/link.ts';
import { vethKind } from '../../lib/kernel/link-kinds.ts';
import { Netns } from '../../lib/kernel/netns.ts';
import { addRoute, listRoutes } from '../../lib/kernel/route.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { Station } from './station.ts';

/** Subnets that no real network has, of RFC 5737, RFC 2544 and RFC 3849. The host gets the first address. */
const subnets: Readonly<Record<Family, readonly string[]>> = {
  4: ['203.0.113.252/30', '198.51.100.252/30', '192.0.2.252/30', '198.19.255.252/30'],
  6: ['2001:db8:ffff:fffc::/126', '2001:db8:ffff:fff8::/126'],
};

/** Name of the interface inside. */
const inside = 'eth0';

/** A namespace that a veth pair joins to the host, in a subnet reserved for documentation or tests. */
export class Outside {
  readonly station: Station;
  /** Families in which it reaches the host: IPv6 may be turned off, and all subnets may be in use. */
  readonly families = new Set<Family>();
  private readonly hostLink: string;

  /** Makes it, up and with routes. @throws Error when the kernel refuses the pair or its IPv4 addresses. */
  constructor() {
    using netns = Netns.create();
    this.hostLink = `probe${Math.floor(Math.random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0')}`;
    this.station = new Station(netns);
    try {
      this.connect(netns);
    } catch (error) {
      void this.station.close();
      throw error;
    }
  }

  private connect(netns: Netns): void {
    using host = openRouteSocket();
    using within = openRouteSocket(netns);
    host.execute(createLink(vethKind({ name: inside, netns }), { name: this.hostLink }));
    const [near, far] = [requireLink(host, this.hostLink), requireLink(within, inside)];
    host.execute(setLink(near.index, { up: true }, this.hostLink));
    within.execute(setLink(far.index, { up: true }, inside));
    for (const family of [4, 6] as const) {
      const taken = listRoutes(host, { family }).filter(({ dst }) => dst.length > 0);
      const subnet = subnets[family]
        .map((one) => Prefix.parse(one))
        .find((one) => !taken.some(({ dst }) => dst.contains(one.first) || one.contains(dst.address)));
      if (!subnet) continue;
      const [own, other] = [subnet.first.plus(1), subnet.first.plus(2)];
      try {
        host.execute(addAddress(near.index, new Prefix(own, subnet.length), { noDad: true }));
        within.execute(addAddress(far.index, new Prefix(other, subnet.length), { noDad: true }));
        const everything = new Prefix(Address.parse(family === 4 ? '0.0.0.0' : '::'), 0);
        within.execute(addRoute({ dst: everything, gw: own, link: far.index }));
        this.families.add(family);
      } catch (error) {
        if (family === 4) throw error; // The kernel may lack IPv6, or have it turned off.
      }
    }
  }

  /** Removes it, and verifies that it is gone. */
  async close(): Promise<void> {
    await this.station.close();
    using socket = openRouteSocket();
    const link = getLink(socket, this.hostLink);
    if (link) socket.attempt(deleteLink(link.index, this.hostLink));
    if (getLink(socket, this.hostLink))
      throw new Error(
        `Interface "${this.hostLink}" of the probe could not be removed. Remove it with "ip link del ${this.hostLink}"`,
      );
  }
}
