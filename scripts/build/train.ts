/**
 * Runs every plugin through a pod's life, so that an executable built for training learns which functions
 * each of them uses. CNI_BIN is that executable's directory. Plugins for which the building machine's kernel
 * lacks a module are trained as far as they get: the rest is compiled when it is called.
 */

import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  Attachment,
  type Conflist,
  type PluginConf,
  runNetworkVerb,
  sample,
} from '../../test/support/chain.ts';
import { type Host, makeHost } from '../../test/support/host.ts';
import { runPlugin, suites } from '../../test/support/plugin.ts';

const conf = join(import.meta.dirname, '../../conf');
/** What a runtime passes to the plugins that ask for it. */
const capabilities = {
  portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
  bandwidth: { ingressRate: 1e6, ingressBurst: 1e6, egressRate: 1e6, egressBurst: 1e6 },
};

/** What has been trained already: many samples have plugins in common. */
const trained = new Set<string>();
const cleanups: (() => void | Promise<void>)[] = [];
try {
  const host = await makeHost({ teardown: (step) => void cleanups.push(step) });
  await prepare(host);
  for (const file of readdirSync(conf).filter((name) => name.endsWith('.conflist')))
    await train(host, sample(file));
  await trainChain(host, { cniVersion: '1.1.0', name: 'lo', plugins: [{ type: 'loopback' }] }, 'lo');
  await trainCommands(host);
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
} finally {
  for (const step of cleanups.reverse()) await step();
}

/** Gives the host what the samples work on: two uplinks, and the lease that flanneld would have written. */
async function prepare(host: Host): Promise<void> {
  for (const uplink of ['eth0', 'eth1'])
    await host.run(['ip', 'link', 'add', uplink, 'up', 'type', 'veth', 'peer', 'name', `${uplink}-peer`]);
  const lease = host.file('/run/flannel/subnet.env');
  mkdirSync(dirname(lease), { recursive: true });
  writeFileSync(
    lease,
    'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
  );
}

/** The most common commands, on a host with two pods. @throws Error with the output of one that fails. */
async function trainCommands(host: Host): Promise<void> {
  const bridge = sample('10-bridge.conflist');
  const network = { ...bridge, plugins: [...bridge.plugins, { type: 'firewall' }] };
  writeFileSync(host.file('/etc/cni/net.d/10-bridge.conflist'), JSON.stringify(network));
  const cni = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    host.run([join(suites.ours, 'cni'), ...args], { env: { CNI_PATH: suites.ours, ...env } });
  const pods = [await host.addPod(), await host.addPod()];
  await cni(['validate', '--bin-dir', suites.ours, join(conf, '10-bridge.conflist')]);
  for (const [i, { netns }] of pods.entries()) {
    const portMappings = [{ hostPort: 8080 + i, containerPort: 80, protocol: 'tcp' }];
    await cni(['add', network.name, netns], { CAP_ARGS: JSON.stringify({ portMappings }) });
  }
  for (const args of [['list'], ['list', '-o', 'json'], ['network', 'ls'], ['draw'], ['--help']])
    await cni(args);
  for (const { netns } of pods) await cni(['del', network.name, netns]);
}

/** Runs every verb of every plugin in the chain, and of its IPAM plugin by itself, even if they fail. */
async function train(host: Host, network: Conflist): Promise<void> {
  await trainChain(host, network, 'eth0');
  for (const { ipam } of network.plugins)
    if (ipam && isNew('alone', (ipam as PluginConf).type))
      await trainChain(host, { ...network, plugins: [{ ...(ipam as PluginConf), ipam }] }, 'eth0');
}

/** Whether a plugin is to be trained in some way for the first time. */
function isNew(way: string, type: string): boolean {
  const before = trained.size;
  trained.add(`${way} ${type}`);
  return trained.size > before;
}

async function trainChain(host: Host, network: Conflist, ifname: string): Promise<void> {
  for (const { type } of network.plugins)
    if (isNew('VERSION', type)) await runPlugin(host, type, 'VERSION', { config: {} });
  const attachment = new Attachment(host, await host.addPod(), network, { capabilities, ifname });
  await runNetworkVerb(host, network, 'STATUS');
  await attachment.tryAdd();
  await attachment.tryCheck();
  await attachment.tryDel();
  await runNetworkVerb(host, network, 'GC', { valid: [] });
}
