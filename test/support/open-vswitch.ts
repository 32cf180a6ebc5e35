/** Open vSwitch on a host: database and switch as processes of their own. */

import type { ChildProcess } from 'node:child_process';
import type { Namespace, Teardown } from './host.ts';
import { runAll, until } from './observe.ts';

/** The datapath: "netdev" in user space, which needs no kernel module, or "system" in the kernel. */
type Datapath = 'netdev' | 'system';

const socket = 'unix:/run/openvswitch/db.sock';

/** The ports of bridge "br1", and all mirrors. */
export function lookAtOpenVswitch(host: Namespace): Promise<string[]> {
  return runAll(host, [
    'ovs-vsctl list-ports br1',
    'ovs-vsctl --columns=name,select_all,select_src_port,select_dst_port,output_port list Mirror',
  ]);
}

/** Open vSwitch of one host. */
export class OpenVswitch {
  readonly host: Namespace;
  private readonly t: Teardown;
  private readonly serverOptions: readonly string[];
  private readonly datapath: Datapath;
  private database: ChildProcess | undefined;

  private constructor(t: Teardown, host: Namespace, serverOptions: readonly string[], datapath: Datapath) {
    this.t = t;
    this.host = host;
    this.serverOptions = serverOptions;
    this.datapath = datapath;
  }

  /** Starts it, with one bridge. @param serverOptions more options of ovsdb-server(1). */
  static async start(
    t: Teardown,
    host: Namespace,
    { bridge = 'br1', serverOptions = [] as readonly string[], datapath = 'netdev' as Datapath } = {},
  ): Promise<OpenVswitch> {
    const ovs = new OpenVswitch(t, host, serverOptions, datapath);
    await host.run(['mkdir', '-p', '/run/openvswitch']);
    await host.run([
      'ovsdb-tool',
      'create',
      '/run/openvswitch/conf.db',
      '/usr/share/openvswitch/vswitch.ovsschema',
    ]);
    await ovs.startDatabase();
    await ovs.vsctl('--no-wait', 'init');
    await ovs.startProcess(['ovs-vswitchd', socket, '--pidfile=/run/openvswitch/ovs-vswitchd.pid']);
    await ovs.addBridge(bridge);
    return ovs;
  }

  async addBridge(name: string): Promise<void> {
    await this.vsctl('add-br', name, '--', 'set', 'bridge', name, `datapath_type=${this.datapath}`);
  }

  /** Runs ovs-vsctl(8). @returns what it printed. */
  async vsctl(...args: string[]): Promise<string> {
    return (await this.host.run(['ovs-vsctl', '--timeout=60', ...args])).trim();
  }

  /** Names of the ports on a bridge. */
  async ports(bridge = 'br1'): Promise<string[]> {
    return (await this.vsctl('list-ports', bridge)).split('\n').filter(Boolean);
  }

  async startDatabase(): Promise<void> {
    this.database = await this.startProcess([
      'ovsdb-server',
      '/run/openvswitch/conf.db',
      '--remote=punix:/run/openvswitch/db.sock',
      '--remote=ptcp:6640:127.0.0.1',
      '--unixctl=/run/openvswitch/ovsdb.ctl',
      ...this.serverOptions,
    ]);
    await until('the database answers', async () => {
      const { exit } = await this.host.tryRun(['ovsdb-client', 'list-dbs', socket]);
      return exit === 0;
    });
  }

  /** Kills the database, as an update of the package does. */
  async stopDatabase(): Promise<void> {
    const ended = new Promise((resolve) => this.database!.once('exit', resolve));
    this.database!.kill('SIGKILL');
    await ended;
    await this.host.run(['rm', '-f', '/run/openvswitch/db.sock', '/run/openvswitch/ovsdb.ctl']);
  }

  private startProcess(argv: readonly string[]): Promise<ChildProcess> {
    return this.host.start(this.t, ['sh', '-c', 'echo started; exec "$@" > /dev/null 2>&1', 'sh', ...argv]);
  }
}
