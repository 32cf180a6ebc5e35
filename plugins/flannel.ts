/**
 * flannel: has another plugin, by default bridge, connect the sandbox to the subnet that flanneld leased for
 * this node.
 */

import type { Call } from '../lib/cni/call.ts';
import { delegate, ElsewhereError, LeftoverError } from '../lib/cni/delegate.ts';
import { definePlugin } from '../lib/cni/plugin.ts';
import { emptyResult } from '../lib/cni/result.ts';
import { type InferShape, json, string, withDefault } from '../lib/cni/schema.ts';
import { runAll } from '../lib/cni/steps.ts';
import { isObject } from '../lib/object.ts';
import { type DelegateConfig, SavedConfigs } from './flannel/saved-config.ts';
import { readSubnetEnv, type SubnetEnv } from './flannel/subnet-env.ts';

const config = {
  subnetFile: withDefault(
    string({ description: "File in which flanneld tells this node's subnet." }),
    '/run/flannel/subnet.env',
  ),
  dataDir: withDefault(
    string({ description: "Directory for the delegates' configurations." }),
    '/var/lib/cni/flannel',
  ),
  delegate: json({
    description: 'Configuration of the delegate, without "name" and "ipam"; a bridge by default.',
  }),
  ipam: json({ description: 'Keys for the IPAM plugin, host-local by default; ranges come from flanneld.' }),
};

type FlannelCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'flannel',
  summary: 'Connects a sandbox to the subnet that flanneld leased for this node.',
  role: 'main',
  passesCapabilities: true,
  config,

  validate({ delegate: configured, ipam }) {
    ownKeys(configured);
    asObject(ipam, 'ipam');
  },

  inner({ delegate: configured }) {
    return [{ path: 'delegate', value: withGateway(ownKeys(configured)), isNetwork: false }];
  },

  explain({ subnetFile, dataDir, delegate: configured, name }) {
    const type = isObject(configured) && typeof configured.type === 'string' ? configured.type : 'bridge';
    return [
      `Reads the subnet that flanneld leased from ${subnetFile}`,
      `Runs "${type}" for network "${name}" with that subnet, and its MTU`,
      `Remembers the configuration of "${type}" in ${dataDir}`,
    ];
  },

  async add(call) {
    const delegated = delegateConfig(call, readSubnetEnv(call.config.subnetFile));
    const saved = savedConfigs(call);
    // The file of a live attachment with the same ID and network is kept until the delegate has accepted this
    // one.
    const earlier = saved.load(call.containerId, call.network);
    if (!earlier) saved.save(call.containerId, delegated);
    const before = call.undoCount;
    let isLeft = false;
    try {
      const result = await delegate(call, delegated.type, { stdin: JSON.stringify(delegated) });
      if (earlier) saved.save(call.containerId, delegated);
      return result ?? emptyResult();
    } catch (error) {
      isLeft = error instanceof ElsewhereError || error instanceof LeftoverError;
      throw error;
    } finally {
      // As long as there is something of the delegate to undo, DEL must know its configuration.
      if (!earlier && !isLeft)
        call.undoLast(before, 'remove the saved configuration of the delegate', () =>
          saved.remove(call.containerId, call.network),
        );
    }
  },

  async del(call) {
    const saved = savedConfigs(call);
    const delegated = saved.load(call.containerId, call.network);
    try {
      await forward(call, delegated ?? currentConfig(call));
    } catch (error) {
      if (delegated) throw error;
      // Nothing indicates that there is anything to remove, so this must not block the container's deletion.
      call.warn(`Without a saved configuration: ${(error as Error).message}`);
    }
    saved.remove(call.containerId, call.network);
  },

  async check(call) {
    await forward(call, usedConfig(call));
  },

  delegated(call) {
    const used = usedConfig(call);
    return { type: used.type, stdin: passedOn(call, used) };
  },

  async status(call) {
    await forward(call, delegateConfig(call, readSubnetEnv(call.config.subnetFile)));
  },

  async gc(call) {
    const saved = savedConfigs(call);
    const valid = new Set(call.validAttachments.map(({ containerId }) => containerId));
    await runAll(
      call,
      () => forward(call, currentConfig(call)),
      () => saved.removeOthers(call.network, valid, (message) => call.warn(message)),
    );
  },
});

function savedConfigs(call: FlannelCall): SavedConfigs {
  return new SavedConfigs(call.config.dataDir);
}

/** Runs the delegate, and passes on what the runtime added to the configuration. */
async function forward(call: FlannelCall, delegated: DelegateConfig): Promise<void> {
  await delegate(call, delegated.type, { stdin: passedOn(call, delegated) });
}

function passedOn({ config }: FlannelCall, delegated: DelegateConfig): string {
  const { prevResult, 'cni.dev/valid-attachments': valid, 'cni.dev/attachments': older } = config;
  return JSON.stringify({
    ...delegated,
    prevResult,
    'cni.dev/valid-attachments': valid,
    'cni.dev/attachments': older,
  });
}

/** The configuration that the delegate was added with. */
function usedConfig(call: FlannelCall): DelegateConfig {
  return savedConfigs(call).load(call.containerId, call.network) ?? currentConfig(call);
}

/**
 * The delegate's current configuration, without ranges when flanneld is gone: good enough for tearing things
 * down.
 */
function currentConfig(call: FlannelCall): DelegateConfig {
  try {
    return delegateConfig(call, readSubnetEnv(call.config.subnetFile));
  } catch {
    return delegateConfig(call);
  }
}

/** The delegate's configuration: the user's keys, and flanneld's values for the rest. */
function delegateConfig(call: FlannelCall, env?: SubnetEnv): DelegateConfig {
  const base = ownKeys(call.config.delegate);
  return {
    ...(env && { ipMasq: !env.masquerades, mtu: env.mtu }),
    ...withGateway(base),
    ...(call.config.runtimeConfig !== undefined && { runtimeConfig: call.config.runtimeConfig }),
    cniVersion: call.config.cniVersion,
    name: call.config.name,
    ipam: ipamConfig(call, env),
  };
}

/** A bridge has the gateway's address unless the user says otherwise. */
function withGateway<T extends { readonly type: string }>(base: T): T {
  return { ...(base.type === 'bridge' && { isGateway: true }), ...base };
}

/** The keys that the user gives for the delegate. @throws Error */
function ownKeys(configured: unknown): { readonly type: string } & Record<string, unknown> {
  const base = asObject(configured, 'delegate');
  for (const key of ['name', 'ipam'])
    if (key in base)
      throw new Error(`"delegate" has "${key}", which this plugin sets. Move it out of "delegate"`);
  const { type = 'bridge' } = base;
  if (typeof type !== 'string')
    throw new Error(
      `"delegate.type" is ${JSON.stringify(type)}, but it must be the name of a plugin, such as "bridge"`,
    );
  return { ...base, type };
}

function ipamConfig(call: FlannelCall, env?: SubnetEnv): object {
  const base = asObject(call.config.ipam, 'ipam');
  const { routes = [] } = base;
  if (!Array.isArray(routes)) throw new Error('"ipam.routes" must be a list of routes');
  return {
    type: 'host-local',
    ...base,
    ...(env && {
      ranges: env.subnets.map((subnet) => [{ subnet }]),
      routes: [...routes, ...env.networks.map((dst) => ({ dst }))],
    }),
  };
}

function asObject(value: unknown, key: string): Record<string, unknown> {
  if (value === undefined || value === null) return {};
  if (isObject(value)) return value;
  throw new Error(`"${key}" is ${JSON.stringify(value).slice(0, 80)}, but it must be an object`);
}
