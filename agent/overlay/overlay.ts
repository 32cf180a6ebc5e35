/**
 * The overlay: what flanneld does on a node, for the plugin "flannel". It leases a subnet from etcd, tells
 * the kernel about the other nodes, and maintains both. While etcd is unreachable, and after the agent has
 * ended, packets keep flowing.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { EtcdClient } from '../../lib/etcd/client.ts';
import { type Listing, listPrefix, watchPrefix } from '../../lib/etcd/watch.ts';
import { Programs } from '../../lib/kernel/programs.ts';
import { openRouteSocket, type RouteSocket } from '../../lib/kernel/route-socket.ts';
import { Attempts } from './attempts.ts';
import { type Dataplane, familiesOf } from './dataplane.ts';
import { ensureFirewall } from './firewall.ts';
import type { OverlayHost, OverlayStatus } from './host.ts';
import { hostGateway } from './host-gw.ts';
import { type Lease, leaseSubnets, renew, type Tenant } from './lease.ts';
import { type NetworkConfig, parseNetworkConfig } from './network-config.ts';
import { type Node, reachValue, type Subnets, subnetKey } from './node.ts';
import { NodeTable } from './node-table.ts';
import { etcdSettings, type OverlaySettings } from './settings.ts';
import { previousSubnets, writeSubnetFile } from './subnet-file.ts';
import { findUplink, type Uplink, UplinkError, watchUplink } from './uplink.ts';
import { vxlan } from './vxlan.ts';

/** Milliseconds until etcd is asked again: at first, and at most. */
const shortestPause = 1000;
const longestPause = 30_000;
/** How often the kernel is checked, in milliseconds: others may have removed routes. */
const checkInterval = 10_000;
/** How many times subnets are drawn while other nodes are faster. */
const leaseTries = 10;
/** The longest time of a timer, in milliseconds. */
const longestTimer = 2 ** 31 - 1;

/** A node's part in the overlay. */
export class Overlay {
  private readonly settings: OverlaySettings;
  private readonly host: OverlayHost;
  private readonly client: EtcdClient;
  private readonly socket: RouteSocket = openRouteSocket();
  private readonly programs: Programs;
  private readonly ending = new AbortController();
  /** As first found: a change needs a restart of the agent, as it may invalidate all addresses. */
  private config: { readonly text: string; readonly parsed: NetworkConfig } | undefined;
  private uplink: Uplink | undefined;
  private plane: Dataplane | undefined;
  private lease: Lease | undefined;
  private others: readonly Node[] = [];
  /** Why further nodes are not among them. */
  private unreachable: readonly string[] = [];
  private problem: string | undefined = 'it has just started';
  private readonly attempts: Attempts;
  /** What the operator was told of other nodes already. */
  private told: ReadonlySet<string> = new Set();

  constructor(settings: OverlaySettings, host: OverlayHost) {
    this.settings = settings;
    this.host = host;
    this.attempts = new Attempts(host);
    this.client = new EtcdClient(etcdSettings(settings));
    this.programs = new Programs(host.environment, host.sharing);
  }

  get status(): OverlayStatus {
    const { 4: v4, 6: v6 } = this.lease?.subnets ?? { 4: undefined, 6: undefined };
    return {
      problem: this.problem ?? this.attempts.trouble,
      backend: this.plane?.reach.backend,
      subnets: [v4, v6].flatMap((one) => (one ? [`${one}`] : [])),
      nodes: this.others.length,
    };
  }

  /** Takes part until {@link stop}. What is in the kernel and in etcd stays. */
  async run(): Promise<void> {
    const { signal } = this.ending;
    void this.keepChecking();
    for (let pause = shortestPause; !signal.aborted; pause = Math.min(pause * 2, longestPause)) {
      const beginAnew = () => {
        pause = shortestPause;
      };
      try {
        await this.takePart(beginAnew);
      } catch (error) {
        if (signal.aborted) break;
        const isOfUplink = error instanceof UplinkError;
        if (isOfUplink) beginAnew();
        const problem = this.host.describe(error);
        const next = isOfUplink ? '' : '\nThe overlay stays as it is; etcd is asked again';
        if (problem !== this.problem) this.host.warn(problem + next);
        this.problem = problem;
      }
      await sleep(pause, undefined, { signal }).catch(() => {});
    }
    this.socket.close();
  }

  stop(): void {
    this.ending.abort();
  }

  /** Leases subnets, and follows changes to the nodes until something goes wrong. */
  private async takePart(onSuccess: () => void): Promise<void> {
    const { tenant, table, revision } = await this.join();
    await this.update(table, tenant);
    await this.publish();
    if (this.problem) this.host.print(`The overlay is in touch with etcd`);
    this.problem = undefined;
    onSuccess();
    const end = new AbortController();
    const signal = AbortSignal.any([this.ending.signal, end.signal]);
    const work = [
      this.keepLease(tenant, signal),
      this.follow(tenant, table, revision + 1n, signal),
      watchUplink(this.socket, this.settings, this.uplink!, familiesOf(tenant.config), signal),
    ];
    try {
      await Promise.race(work);
    } finally {
      end.abort();
      await Promise.allSettled(work);
    }
  }

  /** Gets the node's subnets. @returns the nodes as they were just before. */
  private async join(): Promise<{ tenant: Tenant; table: NodeTable; revision: bigint }> {
    for (let tries = 1; tries <= leaseTries; tries++) {
      this.uplink = findUplink(this.socket, this.settings, this.uplink);
      const listing = await listPrefix(this.client, `${this.root}/`);
      const config = this.configOf(listing);
      const table = new NodeTable(this.prefix, config, listing.kvs, (message) => this.host.warn(message));
      const tenant = this.prepare(config, table, this.uplink);
      const lease = this.heldLease(tenant, table) ?? (await this.newLease(tenant, table, tries));
      if (!lease) continue;
      this.lease = lease;
      return { tenant, table, revision: listing.revision };
    }
    throw new Error('Other nodes were faster each time that a free subnet was found');
  }

  /** @throws Error when there is no network, or one that this node cannot be part of. */
  private configOf({ kvs }: Listing): NetworkConfig {
    const key = `${this.root}/config`;
    const text = kvs.find((kv) => kv.key === key)?.value;
    if (this.config) {
      if (text !== this.config.text) this.noteChange();
      return this.config.parsed;
    }
    if (text === undefined)
      throw new Error(
        `etcd has no key "${key}" with the network. Write it, as in: etcdctl put ${key} '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'`,
      );
    try {
      this.config = { text, parsed: parseNetworkConfig(text) };
    } catch (error) {
      throw new Error(`Key "${key}" of etcd is not a network that this node can be part of`, {
        cause: error,
      });
    }
    return this.config.parsed;
  }

  private prepare(config: NetworkConfig, table: NodeTable, uplink: Uplink): Tenant {
    const isThis = ({ publicIp }: Node) => Boolean(uplink.publicIp[4]?.equals(publicIp[4]));
    const known = table.all.find(({ node }) => isThis(node))?.node.macs;
    const options = {
      ...{ socket: this.socket, config, uplink, warn: (message: string) => this.host.warn(message) },
      macs: this.plane?.reach.macs ?? known ?? { 4: undefined, 6: undefined },
    };
    this.plane = config.backend.type === 'vxlan' ? vxlan(options) : hostGateway(options);
    return { client: this.client, prefix: this.prefix, config, reach: this.plane.reach };
  }

  /** The lease that this agent holds, if it is still good. */
  private heldLease({ reach, config }: Tenant, table: NodeTable): Lease | undefined {
    const { lease } = this;
    const isHeld =
      lease &&
      lease.end - performance.now() > this.margin &&
      lease.value === reachValue(reach, config.backend.vni) &&
      table.all.some(({ kv }) => kv.key === lease.key && kv.value === lease.value);
    return isHeld ? lease : undefined;
  }

  private async newLease(tenant: Tenant, table: NodeTable, tries: number): Promise<Lease | undefined> {
    const previous = this.lease?.subnets ?? previousSubnets(this.settings['subnet-file']);
    // The previous ones once only: an invalid key may be in their way for ever.
    const lease = await leaseSubnets(tenant, table.all, tries === 1 ? previous : undefined, this.lease);
    if (!lease) return undefined;
    const name = subnetKey(lease.subnets);
    this.host.print(`This node, ${tenant.reach.publicIp[4]}, has leased ${name}`);
    if (previous && subnetKey(previous) !== name)
      this.host.warn(
        `This node had ${subnetKey(previous)} before, which it could not keep. Pods that have addresses of it are cut off: start them anew`,
      );
    return lease;
  }

  /** Keeps renewing the lease. @throws Error when it is lost. */
  private async keepLease(tenant: Tenant, signal: AbortSignal): Promise<never> {
    for (;;) {
      const left = this.lease!.end - this.margin - performance.now();
      await sleep(Math.min(Math.max(left, 0), longestTimer), undefined, { signal });
      if (left > longestTimer) continue;
      const renewed = await renew(tenant, this.lease!);
      if (!renewed) throw new Error(`The lease of ${subnetKey(this.lease!.subnets)} is lost`);
      this.lease = renewed;
    }
  }

  /** Carries changes in etcd over to the kernel. @throws Error when the lease is lost. */
  private async follow(tenant: Tenant, table: NodeTable, from: bigint, signal: AbortSignal): Promise<void> {
    for await (const changes of watchPrefix(this.client, `${this.root}/`, from, signal)) {
      for (const change of changes) {
        const { kv, isDeleted } = change;
        if (kv.key === `${this.root}/config` && kv.value !== this.config?.text) this.noteChange();
        table.change(change);
        if (kv.key === this.lease?.key && (isDeleted || kv.value !== this.lease.value))
          throw new Error(
            `The lease of ${subnetKey(this.lease.subnets)} is lost: its key was ${isDeleted ? 'deleted' : 'taken over'}`,
          );
      }
      await this.update(table, tenant);
    }
  }

  /** Updates the other nodes, and the kernel. */
  private async update(table: NodeTable, tenant: Tenant): Promise<void> {
    const { subnets } = this.lease!;
    const { others, problems } = table.othersThan(tenant, subnets);
    this.unreachable = problems;
    const namesOf = (nodes: readonly Node[]) =>
      new Map(nodes.map((node) => [`${subnetKey(node.subnets)} of ${node.publicIp[4]}`, node]));
    const [before, now] = [namesOf(this.others), namesOf(others)];
    for (const name of before.keys()) if (!now.has(name)) this.host.print(`${name} has left the overlay`);
    for (const name of now.keys()) if (!before.has(name)) this.host.print(`${name} has joined the overlay`);
    this.others = others;
    await this.apply(subnets);
  }

  private async apply(subnets: Subnets): Promise<void> {
    await this.attempts.at('kernel', () => {
      const problems = new Set([...this.unreachable, ...this.plane!.apply(subnets, this.others)]);
      for (const problem of problems) if (!this.told.has(problem)) this.host.warn(problem);
      this.told = problems;
    });
  }

  /** Makes the node's subnets known to the plugins and the firewall. */
  private async publish(): Promise<void> {
    const { parsed: config } = this.config!;
    const { subnets } = this.lease!;
    const { 'ip-masq': masquerade, 'iptables-forward-rules': forward, 'subnet-file': file } = this.settings;
    const { mtu } = this.plane!;
    await this.attempts.at('file', () => writeSubnetFile(file, config, subnets, mtu, masquerade));
    await this.attempts.at('firewall', () =>
      ensureFirewall(this.programs, config, subnets, { masquerade, forward }),
    );
  }

  /** Checks until {@link stop}, one check after the other, as each may have to wait. */
  private async keepChecking(): Promise<void> {
    const { signal } = this.ending;
    for (;;) {
      await sleep(checkInterval, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      await this.check();
    }
  }

  /** Restores what others have removed, whether etcd is reachable or not. */
  private async check(): Promise<void> {
    if (!this.lease || !this.plane) return;
    await this.apply(this.lease.subnets);
    await this.publish();
  }

  private noteChange(): void {
    this.host.warn(
      `Key "${this.root}/config" of etcd has changed. Restart the agents of all nodes for it to take effect`,
    );
  }

  /** What all keys begin with, without a final "/". */
  private get root(): string {
    return this.settings['etcd-prefix'];
  }

  private get prefix(): string {
    return `${this.root}/subnets/`;
  }

  /** How long before its end the lease is renewed, in milliseconds. */
  private get margin(): number {
    return this.settings['subnet-lease-renew-margin'] * 60_000;
  }
}
