/** A lease as the daemon keeps it: renewed in time, and written down so that it outlives the daemon. */

import { formatResult, parseResult, type Result } from '../../lib/cni/result.ts';
import type { CniError } from '../../lib/errors.ts';
import { Address } from '../../lib/ip.ts';
import { getLink, requireLink, setLink } from '../../lib/kernel/link.ts';
import { parseMac } from '../../lib/kernel/mac.ts';
import { Netns } from '../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import {
  acquire,
  type ClientOptions,
  type ClientSettings,
  type Grant,
  release,
  renew,
  resultOf,
} from './client.ts';
import type { ClientLink } from './link-socket.ts';

/** Whose lease it is. */
export interface LeaseOwner {
  containerId: string;
  network: string;
  ifname: string;
  /** Path of the network namespace, as the daemon sees it. */
  netns: string;
}

/** Longest time that setTimeout takes, in milliseconds. */
const longestTimer = 2 ** 31 - 1;
/** Pause before a server that did not answer is asked again, in milliseconds. */
const retryPause = 60_000;

/** A lease, and the timer that keeps it. */
export class Lease {
  readonly owner: LeaseOwner;
  private readonly options: ClientOptions;
  private readonly settings: ClientSettings;
  private grant: Grant;
  private timer: NodeJS.Timeout | undefined;
  /** Called when the lease has changed, or has ended by itself. */
  private readonly changed: (lease: Lease, ended: boolean) => void;

  private constructor(
    owner: LeaseOwner,
    options: ClientOptions,
    settings: ClientSettings,
    grant: Grant,
    changed: (lease: Lease, ended: boolean) => void,
  ) {
    this.owner = owner;
    this.options = options;
    this.settings = settings;
    this.grant = grant;
    this.changed = changed;
  }

  /** Gets an address from a server. The interface is set up for that. @throws CniError */
  static async acquire(
    owner: LeaseOwner,
    options: ClientOptions,
    settings: ClientSettings,
    changed: (lease: Lease, ended: boolean) => void,
  ): Promise<Lease> {
    using netns = Netns.open(owner.netns);
    const link = prepareLink(netns, owner.ifname);
    const lease = new Lease(owner, options, settings, await acquire(link, options, settings), changed);
    lease.schedule();
    return lease;
  }

  /** What the sandbox gets. */
  get result(): Result {
    return resultOf(this.grant);
  }

  /** Gives the address back, as far as the interface is still there to say so. */
  release(): void {
    this.stop();
    using netns = Netns.openIfPresent(this.owner.netns);
    const link = netns && clientLink(netns, this.owner.ifname);
    if (link) release(link, this.grant, this.options, this.settings);
  }

  /** Lets the lease be, without giving it back. */
  stop(): void {
    clearTimeout(this.timer);
  }

  private schedule(at: number = this.grant.renewAt): void {
    clearTimeout(this.timer);
    const wait = Math.max(at - Date.now(), 0);
    this.timer = setTimeout(
      () => (wait > longestTimer ? this.schedule(at) : void this.keep()),
      Math.min(wait, longestTimer),
    );
  }

  /** Asks the server that granted it, later any server, and at the end takes the link down: the address is no longer ours. */
  private async keep(): Promise<void> {
    using netns = Netns.openIfPresent(this.owner.netns);
    const link = netns && clientLink(netns, this.owner.ifname);
    if (!link) return this.changed(this, true); // The container is gone, whether DEL comes or not.
    const { server, rebindAt, expiresAt } = this.grant;
    const now = Date.now();
    try {
      const rebinding = now >= rebindAt;
      const renewed =
        now < expiresAt &&
        (await renew(
          link,
          this.grant,
          this.options,
          this.settings,
          rebinding ? undefined : server,
          rebinding ? expiresAt : rebindAt,
        ));
      if (renewed) {
        this.grant = renewed;
        this.changed(this, false);
        return this.schedule();
      }
      if (Date.now() < expiresAt)
        return this.schedule(Math.min(Date.now() + (rebinding ? retryPause : 0), expiresAt));
    } catch (error) {
      process.stderr.write(`${this.key}: ${(error as CniError).message}\n`);
      if (Date.now() < expiresAt && !/took address/.test((error as Error).message))
        return this.schedule(Math.min(Date.now() + retryPause, expiresAt));
    }
    using socket = openRouteSocket(netns);
    socket.execute(setLink(link.index, { up: false }, link.name));
    process.stderr.write(
      `${this.key}: the lease of ${this.grant.address} has ended, so "${link.name}" is set down\n`,
    );
    this.changed(this, true);
  }

  /** What tells leases apart. */
  get key(): string {
    return leaseKey(this.owner);
  }

  /** The lease as text, for {@link Lease.restore}. */
  serialize(): string {
    const { address, server, gateway, routes, ...times } = this.grant;
    return JSON.stringify({
      owner: this.owner,
      options: {
        clientId: [...this.options.clientId],
        request: this.options.request,
        provide: [...this.options.provide].map(([number, value]) => [number, [...value]]),
      },
      server,
      times,
      result: JSON.parse(formatResult(resultOf({ address, server, gateway, routes, ...times }), '1.1.0')),
    });
  }

  /**
   * Takes a lease up again that an earlier daemon wrote down.
   * @returns undefined when it has expired, or its interface is gone.
   */
  static restore(
    text: string,
    settings: ClientSettings,
    changed: (lease: Lease, ended: boolean) => void,
  ): Lease | undefined {
    const stored = JSON.parse(text) as {
      owner: LeaseOwner;
      options: { clientId: number[]; request: number[]; provide: [number, number[]][] };
      server: string;
      times: { renewAt: number; rebindAt: number; expiresAt: number };
      result: unknown;
    };
    if (stored.times.expiresAt <= Date.now()) return undefined;
    using netns = Netns.openIfPresent(stored.owner.netns);
    if (!netns || !clientLink(netns, stored.owner.ifname)) return undefined;
    const { ips, routes } = parseResult(stored.result, '1.1.0');
    const options = {
      clientId: Uint8Array.from(stored.options.clientId),
      request: stored.options.request,
      provide: new Map(stored.options.provide.map(([number, value]) => [number, Uint8Array.from(value)])),
    };
    const grant = {
      address: ips[0]!.address,
      gateway: ips[0]!.gateway,
      routes,
      server: Address.parse(stored.server),
      ...stored.times,
    };
    const lease = new Lease(stored.owner, options, settings, grant, changed);
    lease.schedule();
    return lease;
  }
}

/** What tells leases apart, and clients to the server. */
export function leaseKey({ containerId, network, ifname }: Omit<LeaseOwner, 'netns'>): string {
  return `${containerId}/${network}/${ifname}`;
}

/** The interface, set up. @throws Error when it is not there. */
function prepareLink(netns: Netns, ifname: string): ClientLink {
  using socket = openRouteSocket(netns);
  const link = requireLink(socket, ifname);
  if (!link.up) socket.execute(setLink(link.index, { up: true }, ifname));
  return clientLink(netns, ifname)!;
}

function clientLink(netns: Netns, ifname: string): ClientLink | undefined {
  using socket = openRouteSocket(netns);
  const link = getLink(socket, ifname);
  const mac = link && parseMac(link.mac);
  return link && mac && { netns, index: link.index, name: link.name, mac };
}
