/** `cni explain FILE|NETWORK`: what ADD would do, step by step, without doing it. */

import { configSchema, type Plugin } from '../lib/cni/plugin.ts';
import { decode } from '../lib/cni/schema.ts';
import { atLeast } from '../lib/cni/version.ts';
import { isObject } from '../lib/object.ts';
import type { Suite } from '../main.ts';
import { sizeOf } from './addresses.ts';
import { CommandError } from './errors.ts';
import { type ConfiguredIpam, ipamOf } from './ipam.ts';
import {
  ipamTypeOf,
  type NetworkList,
  type PluginEntry,
  readNetworkFile,
  wholeConfig,
} from './libcni/conflist.ts';
import { findNetwork } from './networks.ts';
import { loadPlugin } from './schema.ts';
import type { Subcommand } from './subcommand.ts';
import { paint, print } from './terminal.ts';

type Config = PluginEntry['config'];

/** The subcommand. @param suite whose plugins say what they do. */
export function explain(suite: Suite): Subcommand<{ configuration: string }> {
  return {
    builder: (yargs) =>
      yargs
        .positional('configuration', {
          type: 'string',
          demandOption: true,
          describe:
            'The name of a network of this host, or a configuration: what has a "/", or ends in .conf, .conflist or .json',
        })
        .example('$0 explain podnet', 'What a network of this host does, step by step')
        .example('$0 explain conf/10-bridge.conflist', 'What a file would do'),
    handler: async ({ configuration: file }) => {
      const isFile = /\/|\.(?:conf|conflist|json)$/.test(file);
      const network = isFile ? readNetworkFile(file) : findNetwork(file);
      print(paint('bold', `ADD of network "${network.name}", in CNI ${network.cniVersion || '0.1.0'}`));
      for (const [i, entry] of network.plugins.entries()) {
        print(`\n${paint('bold', `${i + 1}. ${entry.type}`)}`);
        for (const step of await stepsOf(entry, network, suite)) print(`   - ${step}`);
      }
      print(
        `\nDEL undoes it from the last plugin to the first, each with the result of ADD. ${afterwards(network)}`,
      );
    },
  };
}

function afterwards({ cniVersion, disableCheck }: NetworkList): string {
  if (disableCheck) return 'CHECK is turned off by "disableCheck".';
  return atLeast(cniVersion || '0.1.0', '0.4.0')
    ? 'CHECK asks each plugin whether everything is as ADD left it.'
    : 'This version has no CHECK.';
}

/** What a plugin does with its configuration. A plugin of another suite is only named. */
async function stepsOf(entry: PluginEntry, network: NetworkList, suite: Suite): Promise<string[]> {
  const { type, capabilities } = entry;
  const asked = capabilities.length > 0 ? [`The runtime passes: ${capabilities.join(', ')}`] : [];
  const plugin = await loadPlugin(suite.plugins, type);
  if (!plugin) return [...asked, 'Runs the executable of that name, which is not of this suite'];
  const config = wholeConfig(entry, network);
  const ipamType = ipamTypeOf(config);
  const ipam = await ipamOf(entry, network, suite);
  try {
    return [
      ...asked,
      ...ownSteps(plugin, config),
      ...(plugin.role === 'main' ? sharedSteps(config) : []),
      ...(ipamType === undefined ? [] : addressSteps(ipamType, ipam, config)),
      ...('ipMasq' in plugin.config.shape ? masqueradeSteps(config) : []),
    ].filter((step) => step !== '');
  } catch (cause) {
    throw new CommandError(`The configuration of "${type}" is not valid. See "cni validate"`, { cause });
  }
}

/** What a plugin itself says. */
function ownSteps(plugin: Plugin<unknown>, config: Config): string[] {
  const decoded = decode(configSchema(plugin), config);
  return plugin.explain?.(decoded as never) ?? [plugin.summary];
}

/** What plugins that create an interface have in common. */
function sharedSteps({ mtu }: Config): string[] {
  return [typeof mtu === 'number' && mtu > 0 ? `Sets the MTU to ${mtu}` : ''];
}

/** What the IPAM plugin itself says, or otherwise whatever its configuration tells. */
function addressSteps(type: string, ipam: ConfiguredIpam | undefined, config: Config): string[] {
  const pools = (ipam?.pools ?? []).map((pool) => `${sizeOf(pool)} in ${pool.subnet}`);
  const { routes } = config.ipam as { routes?: unknown };
  const destinations = (Array.isArray(routes) ? routes : []).flatMap((route) =>
    isObject(route) && typeof route.dst === 'string' ? [route.dst] : [],
  );
  const added = destinations.length > 0 ? `Adds routes in the container: ${destinations.join(', ')}` : '';
  return [
    `Asks "${type}" for ${pools.length > 1 ? 'addresses' : 'an address'}${pools.length > 0 ? `: it has ${pools.join(', ')}` : ''}`,
    ...(ipam?.plugin.explain?.(ipam.config()) ?? [added]),
  ];
}

function masqueradeSteps({ ipMasq, ipMasqBackend }: Config): string[] {
  const backend = ipMasqBackend || 'iptables, or nftables where iptables is not installed';
  return [ipMasq ? `Masquerades what leaves the subnet, by ${backend}` : ''];
}
