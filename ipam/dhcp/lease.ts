/** A lease as the daemon keeps it: renewed in time, and written down so that it outlives the daemon. */

import { attachmentKey } from '../../lib/attachment.ts';
import { errorObject } from '../../lib/cni/error-object.ts';
import { formatResult, parseResult, type Result } from '../../lib/cni/result.ts';
import { Address } from '../../lib/ip.ts';
import { bootId, isEarlierBoot, msSinceBoot } from '../../lib/kernel/boot.ts';
import { setLink } from '../../lib/kernel/link.ts';
import { Netns } from '../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import {
  AddressLostError,
  acquire,
  type ClientOptions,
  type ClientSettings,
  release,
  renew,
} from './client.ts';
import { clientLink, identityOf, indexIn, prepareLink } from './client-link.ts';
import { type Grant, resultOf } from './grant.ts';
import type { ClientLink } from './link-socket.ts';
import type { LeaseOwner } from './owner.ts';
import { readStoredLease, type StoredLease } from './stored-lease.ts';

/** What a lease tells the daemon. */
export interface LeaseKeeper {
  readonly settings: ClientSettings;
  /** The lease has new times. */
  renewed(lease: Lease): void;
  /** The lease has ended by itself, or its interface no longer exists. */
  ended(lease: Lease): void;
  log(message: string): void;
}

/** Timers stand still while the host sleeps, so they are set again after this time, in milliseconds. */
const longestTimer = 60_000;
/** How long servers are asked before pausing, or before an address is given up, in milliseconds. */
const renewalAttempt = 10_000;
/**
 * Pause before a server that did not answer is asked again, in milliseconds. RFC 2131, section 4.4.5, wants a
 * minute.
 */
const retryPause = 60_000;

/** A lease, and the timer that keeps it. */
export class Lease {
  readonly owner: LeaseOwner;
  /** Identifies its interface, whatever has the path and the name later: see {@link identityOf}. */
  private readonly link: string;
  private readonly index: number;
  private readonly options: ClientOptions;
  private readonly keeper: LeaseKeeper;
  private grant: Grant;
  private timer: NodeJS.Timeout | undefined;
  /** Ends a renewal that is under way. */
  private readonly stopping = new AbortController();

  private constructor(
    owner: LeaseOwner,
    link: ClientLink,
    options: ClientOptions,
    grant: Grant,
    keeper: LeaseKeeper,
  ) {
    this.owner = owner;
    this.link = identityOf(link);
    this.index = link.index;
    this.options = options;
    this.grant = grant;
    this.keeper = keeper;
    this.schedule(grant.renewAt);
  }

  /** Gets an address from a server. The interface is brought up for that. @throws CniError */
  static async acquire(owner: LeaseOwner, options: ClientOptions, keeper: LeaseKeeper): Promise<Lease> {
    using netns = Netns.open(owner.netns);
    const link = prepareLink(netns, owner.ifname);
    const grant = await acquire(link, options, keeper.settings);
    return new Lease(owner, link, options, grant, keeper);
  }

  /**
   * Takes up a lease again that an earlier daemon wrote down in the same boot of the host. One that has
   * expired meanwhile ends at once, and its interface is brought down.
   * @returns undefined when its interface no longer exists, as after a reboot.
   * @throws Error when the text is not a lease.
   */
  static restore(text: string, keeper: LeaseKeeper): Lease | undefined {
    const { boot, owner, link, clientId, request, provide, server, times, result } = readStoredLease(text);
    if (isEarlierBoot(boot)) return undefined;
    const { ips, routes } = parseResult(result, '1.1.0');
    const [ip] = ips;
    if (!ip) throw new Error('It has no address');
    using netns = Netns.openIfPresent(owner.netns);
    const found = netns && clientLink(netns, indexIn(link) ?? owner.ifname);
    if (!found || identityOf(found) !== (link ?? identityOf(found))) return undefined;
    const grant = {
      address: ip.address,
      gateway: ip.gateway,
      routes,
      server: Address.parse(server),
      ...times,
    };
    const options = { clientId: Uint8Array.from(clientId), request, provide };
    return new Lease(owner, found, options, grant, keeper);
  }

  /** Identifies the lease. */
  get key(): string {
    return attachmentKey(this.owner);
  }

  /** What the sandbox gets. */
  get result(): Result {
    return resultOf(this.grant);
  }

  /** The lease as text, for {@link Lease.restore}. */
  toText(): string {
    const { server, renewAt, rebindAt, expiresAt } = this.grant;
    const { clientId, request, provide } = this.options;
    const stored: StoredLease = {
      // Without a boot ID, the times would be taken for times of day.
      boot: bootId() ?? 'unknown',
      owner: this.owner,
      link: this.link,
      options: {
        clientId: [...clientId],
        request: [...request],
        provide: [...provide].map(([number, value]) => [number, [...value]]),
      },
      server: `${server}`,
      times: { renewAt, rebindAt, expiresAt },
      result: JSON.parse(formatResult(this.result, '1.1.0')) as unknown,
    };
    return JSON.stringify(stored);
  }

  /** Whether its interface still exists. */
  isLiving(): boolean {
    using netns = Netns.openIfPresent(this.owner.netns);
    return this.linkIn(netns) !== undefined;
  }

  /**
   * Gives the address back, if the interface still exists to say so.
   * @throws Error when that cannot be sent.
   */
  async release(): Promise<void> {
    this.stop();
    using netns = Netns.openIfPresent(this.owner.netns);
    const link = this.linkIn(netns);
    if (link) await release(link, this.grant, this.options, this.keeper.settings);
  }

  /** Stops keeping the lease, without giving it back. A renewal under way is abandoned. */
  stop(): void {
    clearTimeout(this.timer);
    this.stopping.abort();
  }

  private schedule(at: number): void {
    const wait = msUntil(at);
    const work = () => (wait > longestTimer ? this.schedule(at) : void this.renewOrExpire());
    this.startTimer(Math.min(wait, longestTimer), work);
  }

  private startTimer(wait: number, work: () => void): void {
    clearTimeout(this.timer);
    if (!this.stopping.signal.aborted) this.timer = setTimeout(work, wait);
  }

  /**
   * Does what is due. It never throws: what goes wrong with one lease must not end the daemon, which keeps
   * all the others.
   */
  private async renewOrExpire(): Promise<void> {
    let now: number | undefined;
    try {
      now = msSinceBoot();
      await this.tryRenewal(now);
    } catch (error) {
      if (this.stopping.signal.aborted) return;
      this.keeper.log(`${this.key}: ${errorObject(error).msg}`);
      this.retry(now);
    }
  }

  /**
   * Tries again after a pause, or when the lease's next stage begins.
   * @param tried when an attempt began; undefined when the clock could not be read.
   */
  private retry(tried = Number.POSITIVE_INFINITY): void {
    const { rebindAt, expiresAt } = this.grant;
    const stages = [rebindAt, expiresAt].filter((at) => at > tried);
    this.startTimer(Math.min(retryPause, ...stages.map(msUntil)), () => void this.renewOrExpire());
  }

  private async tryRenewal(now: number): Promise<void> {
    const { signal } = this.stopping;
    const { settings } = this.keeper;
    const { server, rebindAt, expiresAt } = this.grant;
    using netns = Netns.openIfPresent(this.owner.netns);
    const link = this.linkIn(netns);
    if (!link) {
      // The container is gone, whether DEL comes or not.
      this.keeper.log(
        `${this.key}: interface "${this.owner.ifname}" no longer exists, so the lease of ${this.grant.address.address} is not renewed any more`,
      );
      return this.keeper.ended(this);
    }
    if (now >= expiresAt) return await this.regain(link);
    const rebinding = now >= rebindAt;
    const until = Math.min(now + renewalAttempt, rebinding ? expiresAt : rebindAt);
    let renewed: Grant | undefined;
    try {
      const { grant, options } = this;
      renewed = await renew(link, grant, options, settings, rebinding ? undefined : server, until, signal);
    } catch (error) {
      if (!(error instanceof AddressLostError) || signal.aborted) throw error;
      this.keeper.log(`${this.key}: ${error.message}`);
      return await this.regain(link);
    }
    if (signal.aborted) return;
    if (renewed) this.keep(renewed);
    else this.retry(now);
  }

  private keep(grant: Grant): void {
    this.grant = grant;
    this.schedule(grant.renewAt);
    this.keeper.renewed(this);
  }

  /**
   * The lease is over. The server may only have forgotten it, or the daemon was away for too long, so that
   * servers are asked for the address once more; unless one grants it, it is given up.
   */
  private async regain(link: ClientLink): Promise<void> {
    const { settings } = this.keeper;
    const { signal } = this.stopping;
    const own = this.grant.address.address;
    let granted: Grant;
    try {
      granted = await acquire(link, this.options, settings, { wanted: own, timeout: renewalAttempt, signal });
    } catch (error) {
      if (signal.aborted) return;
      this.keeper.log(`${this.key}: ${errorObject(error).msg}`);
      return this.expire(link);
    }
    if (granted.address.address.equals(own)) {
      if (!signal.aborted) this.keep(granted);
      return;
    }
    await release(link, granted, this.options, settings).catch((error: Error) =>
      this.keeper.log(error.message),
    );
    if (signal.aborted) return;
    this.keeper.log(
      `${this.key}: the DHCP server grants ${granted.address} in place of ${this.grant.address}, which a running container cannot change to. Delete the container and add it again`,
    );
    this.expire(link);
  }

  /** Its interface, whatever its name is by now; undefined when that is gone. */
  private linkIn(netns: Netns | undefined): ClientLink | undefined {
    const link = netns && clientLink(netns, this.index);
    return link && identityOf(link) === this.link ? link : undefined;
  }

  /** The address no longer belongs to the container: nothing may be sent from it. */
  private expire({ netns, index, name }: ClientLink): void {
    using socket = openRouteSocket(netns);
    socket.execute(setLink(index, { up: false }, name));
    this.keeper.log(
      `${this.key}: the lease of ${this.grant.address} has ended, so "${name}" was brought down`,
    );
    this.keeper.ended(this);
  }
}

/** Milliseconds until a time; infinite while the clock cannot be read, as with too many open files. */
function msUntil(at: number): number {
  try {
    return Math.max(at - msSinceBoot(), 0);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
