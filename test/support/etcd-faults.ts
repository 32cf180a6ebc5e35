/** Faults of an etcd cluster, each with its repair. All of them leave two of three members. */

import { until } from './observe.ts';
import type { NodeCluster } from './whereabouts.ts';

/** Something that can happen to a cluster. */
export interface Fault {
  /** The node that is cut off meanwhile, if there is one. */
  readonly cutOff?: number;
  /** Makes it happen. @returns a function that repairs it, and waits until all members are healthy. */
  happen(cluster: NodeCluster): Promise<() => Promise<void>>;
}

/** Faults by name. */
export const faults: Readonly<Record<string, Fault>> = {
  'leader killed': {
    async happen({ etcd }) {
      const leader = await etcd.leader();
      await etcd.kill(leader);
      return () => startAgain(etcd, leader);
    },
  },

  'node cut off': {
    cutOff: 2,
    async happen({ etcd, nodes }) {
      const node = nodes[2]!;
      await node.cutOff();
      return async () => {
        // What is queued there was dated by a clock that is ahead.
        const future = ['-type', 'f', '-exec', 'touch', '-d', '2040-01-01', '{}', '+'];
        await node.host.run(['find', '/var/lib/cni', ...future]);
        await node.join();
        await etcd.untilHealthy();
      };
    },
  },

  'member stopped': {
    async happen({ etcd }) {
      etcd.signal(1, 'SIGSTOP');
      return async () => {
        etcd.signal(1, 'SIGCONT');
        await etcd.untilHealthy();
      };
    },
  },

  compaction: {
    async happen({ etcd }) {
      const { header } = (await etcd.ask('/v3/maintenance/status', {})) as { header: { revision: string } };
      await etcd.ask('/v3/kv/compaction', { revision: header.revision, physical: true });
      for (const member of [0, 1, 2]) await etcd.ask('/v3/maintenance/defragment', {}, member);
      return () => etcd.untilHealthy();
    },
  },

  'disk full': {
    async happen({ etcd, nodes }) {
      const { host } = nodes[2]!;
      const filler = '/run/etcd/m2/filler';
      await host.run(['sh', '-c', `cat /dev/zero > ${filler} 2> /dev/null || true`]);
      return async () => {
        const free = (await host.run(['df', '--output=avail', '/run/etcd/m2'])).split('\n')[1]!.trim();
        if (etcd.isRunning(2) && free !== '0')
          throw new Error(`The disk has ${free} KB left, and is to be full`);
        await host.run(['rm', filler]);
        await startAgain(etcd, 2);
      };
    },
  },
};

/** Restarts a member, ending it first if it still runs. */
async function startAgain(etcd: NodeCluster['etcd'], member: number): Promise<void> {
  await etcd.kill(member);
  await until(`member ${member} runs`, async () => {
    await etcd.startMember(member);
    return etcd.isRunning(member);
  });
  await etcd.untilHealthy();
}
