/** `cni list`, `network ls` and `draw` on a host with many pods, which have the most common chain. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultCacheDir, writeCached } from '../../cli/libcni/cache.ts';
import { suites } from '../../test/support/plugin.ts';
import { addChain, addNamespace, type Network, removeNamespace } from './call.ts';
import { clear, networksDir, podNetwork } from './host.ts';
import { emptySamples, type Line, type Scenario } from './scenario.ts';

/** The reference has no such commands, so that only this suite is measured. @param pods on the host. */
export function listing(pods: number, rounds: number): Scenario {
  return {
    name: 'cni list',
    async measure() {
      const network = configured();
      mkdirSync(networksDir, { recursive: true });
      writeFileSync(join(networksDir, '10-bench.conflist'), JSON.stringify(network));
      const names: string[] = [];
      for (let i = 0; i < pods; i++) {
        const own = withFirewall(podNetwork(20000 + 2 * i));
        const pod = { ...addNamespace(), containerId: `listed${i}` };
        names.push(pod.name);
        const { attached } = await addChain(own, 'agent', pod);
        writeCached(defaultCacheDir, {
          ...{ network: network.name, containerId: pod.containerId, netns: pod.netns, ifname: 'eth0' },
          ...{ config: Buffer.from(JSON.stringify(network)), args: [] },
          capabilityArgs: runtimeConfigOf(own),
          result: attached.result as Record<string, unknown>,
        });
      }
      const commands = [['list'], ['network', 'ls'], ['draw']];
      const lines = commands.map((args) => measureCommand(args, pods, rounds));
      for (const name of names) removeNamespace(name);
      rmSync(`${defaultCacheDir}/results`, { recursive: true });
      rmSync(networksDir, { recursive: true });
      clear();
      return lines;
    },
  };
}

function withFirewall({ name, plugins }: Network): Network {
  return { name, plugins: [...plugins, { type: 'firewall', backend: 'iptables' }] };
}

/** The network as it is configured: the ports come from the runtime. */
function configured(): Network & { cniVersion: string } {
  const { name, plugins } = withFirewall(podNetwork());
  const fromRuntime = { type: 'portmap', capabilities: { portMappings: true } };
  return {
    ...{ cniVersion: '1.0.0', name },
    plugins: plugins.map((plugin) => (plugin.type === 'portmap' ? fromRuntime : plugin)),
  };
}

function runtimeConfigOf({ plugins }: Network): Record<string, unknown> {
  return plugins.find(({ type }) => type === 'portmap')!.runtimeConfig as Record<string, unknown>;
}

/** @throws Error when the command fails, or "list" does not find every pod in order. */
function measureCommand(args: readonly string[], pods: number, rounds: number): Line {
  const samples = emptySamples();
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now();
    const output = execFileSync(join(suites.ours, 'cni'), args, {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, NETCONFPATH: networksDir, CNI_PATH: suites.ours },
    });
    const time = performance.now() - start;
    if (args[0] === 'list' && !output.endsWith(`\n${pods} attachments, all ok.\n`))
      throw new Error(`cni list did not find all pods in order: ${output.slice(-200)}`);
    // The first one warms up.
    if (round > 0) samples.alone.push(time);
  }
  return { name: `cni ${args.join(' ')}, ${pods.toLocaleString('en')} pods`, unit: 'ms', samples };
}
