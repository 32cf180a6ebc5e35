/** What befalls a cluster of etcd, each with its end. All of it leaves two of three members. */

import { until } from './observe.ts';
import type { NodeCluster } from './whereabouts.ts';

/** A fault that has happened. */
export interface Fault {
  /** The node whose calls fail meanwhile, if there is one. */
  readonly node: number | undefined;
  /** Mends it, and waits until all members are well. */
  mend(): Promise<void>;
}

type Happen = (cluster: NodeCluster) => Promise<Fault>;

/** Faults by what they are called. */
export const faults: Readonly<Record<string, Happen>> = {
  async 'leader killed'({ etcd }) {
    const leader = await etcd.leader();
    await etcd.kill(leader);
    return { node: undefined, mend: () => startAgain(etcd, leader) };
  },

  async 'node cut off'({ etcd, nodes }) {
    await nodes[2]!.cutOff();
    return {
      node: 2,
      async mend() {
        // What waits there was written down by a clock that is ahead.
        const future = ['-type', 'f', '-exec', 'touch', '-d', '2040-01-01', '{}', '+'];
        await nodes[2]!.host.run(['find', '/var/lib/cni', ...future]);
        await nodes[2]!.join();
        await etcd.untilHealthy();
      },
    };
  },

  async 'member stopped'({ etcd }) {
    etcd.signal(1, 'SIGSTOP');
    return {
      node: undefined,
      async mend() {
        etcd.signal(1, 'SIGCONT');
        await etcd.untilHealthy();
      },
    };
  },

  async compaction({ etcd }) {
    const { header } = (await etcd.ask('/v3/maintenance/status', {})) as { header: { revision: string } };
    await etcd.ask('/v3/kv/compaction', { revision: header.revision, physical: true });
    for (const member of [0, 1, 2]) await etcd.ask('/v3/maintenance/defragment', {}, member);
    return { node: undefined, mend: () => etcd.untilHealthy() };
  },

  async 'disk full'({ etcd, nodes }) {
    const { host } = nodes[2]!;
    const filler = '/run/etcd/m2/filler';
    await host.run(['sh', '-c', `cat /dev/zero > ${filler} 2> /dev/null || true`]);
    return {
      node: undefined,
      async mend() {
        const free = (await host.run(['df', '--output=avail', '/run/etcd/m2'])).split('\n')[1]!.trim();
        if (etcd.isRunning(2) && free !== '0')
          throw new Error(`The disk has ${free} KB left, and is to be full`);
        await host.run(['rm', filler]);
        await startAgain(etcd, 2);
      },
    };
  },
};

/** Starts a member that has ended; one that runs is ended first. */
async function startAgain(etcd: NodeCluster['etcd'], member: number): Promise<void> {
  await etcd.kill(member);
  await until(`member ${member} runs`, async () => {
    await etcd.startMember(member);
    return etcd.isRunning(member);
  });
  await etcd.untilHealthy();
}
