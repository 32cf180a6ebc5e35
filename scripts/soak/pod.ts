/** A pod of a soak: its namespace, its network, and the server in it that says which pod it is. */

import { createServer, type Server, type Socket } from 'node:net';
import { Netns } from '../../lib/kernel/netns.ts';
import { run } from '../../test/support/run.ts';
import type { Contender } from '../bench/call.ts';
import { hostPortOf, podPort, type SoakNetwork } from './networks.ts';

/** How many of its last calls are shown. */
const told = 12;

const idPrefix = 'soak-container-';

/** The number of the life that a container ID stands for. */
export function lifeOf(containerId: string): number {
  return Number(containerId.slice(idPrefix.length));
}

/** A pod, and what is known about it. */
export class Pod {
  readonly name: string;
  readonly containerId: string;
  readonly netns: string;
  readonly ifname = 'eth0';
  readonly network: SoakNetwork;
  /** The port of the host that leads to it. */
  readonly hostPort: number | undefined;
  /** Its addresses, as the runtime knows them, while it is attached. */
  addresses: readonly string[] = [];
  /** Since when it is let through the firewall, as in performance.now(), and whether by the reference. */
  admittedAt = 0;
  isAdmittedByReference = false;
  /** Whether the reference has made its interface. */
  isConnectedByReference = false;
  /** Whether the reference has done its whole chain. */
  isOfReferenceAlone = false;
  /** Who did the last DEL of each plugin that succeeded. */
  readonly deletedBy = new Map<string, Contender>();
  /** Its calls, in words. */
  readonly history: string[] = [];
  private server: Server | undefined;
  private readonly connections = new Set<Socket>();

  /** @param life number of its life. */
  constructor(life: number, network: SoakNetwork) {
    this.name = `soak${life}`;
    this.containerId = `${idPrefix}${life}`;
    this.netns = `/run/netns/${this.name}`;
    this.network = network;
    this.hostPort = network.mapsPorts ? hostPortOf(life) : undefined;
  }

  /** Values for the capabilities of its network's plugins. */
  get capabilities(): Record<string, unknown> {
    if (this.hostPort === undefined) return {};
    return {
      portMappings: [{ hostPort: this.hostPort, containerPort: podPort, protocol: 'tcp' }],
    };
  }

  /** Its last calls, in words. */
  get lastCalls(): string {
    return this.history.slice(-told).join(', ');
  }

  /** Notes who lets it through the firewall from now on. */
  admit(contender: Contender): void {
    this.admittedAt = performance.now();
    this.isAdmittedByReference = contender === 'reference';
  }

  /** Makes its namespace. */
  async create(): Promise<void> {
    await run(['ip', 'netns', 'add', this.name]);
  }

  /** Has it say its name to whoever connects to {@link podPort}. */
  serve(): void {
    const server = createServer((socket) => {
      this.connections.add(socket);
      socket.on('close', () => this.connections.delete(socket)).on('error', () => {});
      socket.end(this.name);
    });
    using netns = Netns.open(this.netns);
    netns.run(() => server.listen(podPort));
    this.server = server;
  }

  /** Ends its server, as a container's processes do before it is detached. */
  async stop(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    // Whoever is at the other end may never close them.
    for (const connection of this.connections) connection.destroy();
    if (server) await new Promise((resolve) => server.close(resolve));
  }

  /** Removes its namespace. */
  async remove(): Promise<void> {
    await run(['ip', 'netns', 'delete', this.name]);
  }
}
