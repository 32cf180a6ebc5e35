/**
 * What reads and changes the host itself: verbs with all their effects, and files at fixed paths. They are
 * tried on a host of their own, with somebody else on it.
 */

import { lutimesSync, mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { heldByOthers, notedAddresses } from '../../lib/firewall/address-holders.ts';
import { portMapChain } from '../../lib/firewall/names.ts';
import { forgetAttachments, isHolderGone, notedAttachments } from '../../lib/firewall/portmap-notes.ts';
import { Address } from '../../lib/ip.ts';
import { cachedResults } from '../../lib/result-cache.ts';
import { answerOf, plugins, sampleList } from './calls.ts';
import { beginAnew, pictureOfBystander, pictureOfPod, pluginPath, program, sandbox } from './own-host.ts';
import { guarded, plant, plantings } from './plant.ts';
import type { Target } from './target.ts';

const attachment = { network: 'n', containerId: 'c1', ifname: 'eth0' };
/** A word of what lies outside. */
const secret = 'not-to-be-read';
const cached = {
  ...{ kind: 'cniCacheV1', networkName: 'n', containerId: 'c1', ifName: 'eth0', netns: '/none' },
  result: {
    interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/none' }],
    ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1' }],
  },
};
const results = '/var/lib/cni/results';
const noted = '/run/cni/portmap';
/** Where something is planted: a directory or a file. */
const places = [results, `${results}/n-c1-eth0`, noted, `${noted}/${portMapChain(attachment)}.json`];
const cacheContents = [
  cached,
  { ...cached, result: { ip4: { ip: '10.1.0.2/24' } } },
  { ...attachment, netns: '/n' },
];

/** Reads the cache in every way that plugins do. @returns what was read. */
function readHints(): unknown {
  const read = [...cachedResults(), ...cachedResults((name) => name.includes('c1'))];
  for (const { network, containerId, ifname, sandboxes, interfaces, addresses } of read) {
    const texts: unknown[] = [network, containerId, ifname, ...sandboxes];
    if (!texts.every((text) => typeof text === 'string')) throw new Error(`Read as text: ${texts}`);
    if (!addresses.every((address) => address instanceof Address)) throw new Error(`Read: ${addresses}`);
    if (!interfaces.every((one) => typeof one === 'object' && one !== null && !Array.isArray(one)))
      throw new Error(`Read as interfaces: ${JSON.stringify(interfaces)}`);
  }
  const address = Address.parse('10.1.0.2');
  const known = { isKnown: false, isGone: () => false };
  const held = [
    notedAddresses('n', []).isHeld(address),
    heldByOthers({ ...attachment, containerId: 'c2' }, known)(address),
    isHolderGone({ containerId: 'c1', isOn: () => true }),
  ];
  forgetAttachments(notedAttachments('n'));
  return [read, held];
}

const resultCache: Target = {
  name: 'result-cache',
  samples: [
    ...places.flatMap((_, at) =>
      plantings.map((what) => Buffer.concat([Buffer.of(at, what), Buffer.from(JSON.stringify(cached))])),
    ),
    ...cacheContents.flatMap((content) =>
      [1, 3].map((at) => Buffer.concat([Buffer.of(at, 0), Buffer.from(JSON.stringify(content))])),
    ),
  ],
  run(input, directory) {
    beginAnew();
    const foreign = JSON.stringify({ ...cached, containerId: secret });
    const [outside, check] = guarded(
      directory,
      places.map((path) => path.slice(dirname(path).length + 1)),
      foreign,
    );
    const [at = 0, what = 0] = input;
    const planted = places[at % places.length]!;
    rmSync(planted, { recursive: true, force: true });
    mkdirSync(dirname(planted), { recursive: true });
    plant(planted, what, outside, input.subarray(2));
    lutimesSync(planted, 0, 0);
    // None of it may keep a plugin from its work: they are hints.
    const read = readHints();
    if (JSON.stringify(read).includes(secret) && planted !== results)
      throw new Error('Something outside was read');
    check();
  },
};

const prevResult = {
  cniVersion: '1.1.0',
  interfaces: [
    { name: 'uplink', mac: '02:00:00:00:00:02' },
    { name: 'eth0', mac: '02:00:00:00:00:01', sandbox },
  ],
  ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1', interface: 1 }],
};
const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];
/** Values that a key may hold in place of what it should. */
const strangeValues = [null, -1, 'x', [], [null], {}];
/** A configuration, and the same with each key in turn holding something strange, its result's keys included. */
function variantsOf(value: Readonly<Record<string, unknown>>): Record<string, unknown>[] {
  return Object.entries(value).flatMap(([key, own], i) => {
    const isObject = typeof own === 'object' && own !== null && !Array.isArray(own);
    const inner: unknown[] = isObject ? variantsOf(own as Record<string, unknown>) : [];
    return [strangeValues[i % strangeValues.length], ...inner].map((other) => ({ ...value, [key]: other }));
  });
}

/** A plugin with all its effects. */
interface Life {
  readonly type: string;
  /** The sample network that has it. */
  readonly file: string;
  /** Keys that the sample lacks. */
  readonly more: Readonly<Record<string, unknown>>;
  /** Keys of another call, such as one that is refused only when something has been done already. */
  readonly other: Readonly<Record<string, unknown>>;
  /** The pod has an "eth0". */
  readonly ifname: string;
}

const lives: readonly Life[] = [
  {
    type: 'bridge',
    file: '10-bridge.conflist',
    more: { macspoofchk: true, mtu: 1400 },
    other: {
      ipam: {
        type: 'static',
        addresses: [{ address: '10.9.0.2/24' }],
        routes: [{ dst: '10.7.0.0/16', gw: '10.6.0.1' }],
      },
    },
    ifname: 'eth1',
  },
  {
    type: 'portmap',
    file: '10-bridge.conflist',
    more: { runtimeConfig: { portMappings }, prevResult },
    other: { conditionsV4: ['-m', 'none-such'] },
    ifname: 'eth0',
  },
  {
    type: 'firewall',
    file: '80-firewall.conflist',
    more: { prevResult },
    other: { backend: 'nftables' },
    ifname: 'eth0',
  },
  {
    type: 'tuning',
    file: '50-tuning.conflist',
    more: { prevResult },
    other: { mtu: 1_000_000 },
    ifname: 'eth0',
  },
];

/** Calls each verb, as a runtime does in a pod's life. */
function lifeOf({ type, file, more, other, ifname }: Life): Target {
  const plugin = plugins.find(({ name }) => name === type)!;
  const sampled = sampleList(file).plugins.find((one) => one.type === type);
  const config = { ...sampled, cniVersion: '1.1.0', name: 'n', ...more };
  const find = (name: string) =>
    Promise.resolve(plugins.find((one) => one.name === name && one.role === 'ipam')!);
  const environment = `CNI_CONTAINERID=c1\0CNI_IFNAME=${ifname}\0CNI_NETNS=${sandbox}\0CNI_ARGS=\n`;
  const [valid, ...others] = [config, { ...config, ...other }, ...variantsOf(config)].map(
    (one) => environment + JSON.stringify(one),
  ) as [string, ...string[]];
  return {
    name: `verbs-${type}`,
    samples: [valid, ...others],
    async run(input) {
      beginAnew();
      const text = input.toString('utf8');
      const end = text.indexOf('\n');
      const pairs = text
        .slice(0, Math.max(end, 0))
        .split('\0')
        .map((pair) => pair.split(/=(.*)/s));
      const given = Object.fromEntries(pairs.map(([key = '', value = '']) => [key, value]));
      const bystander = pictureOfBystander();
      const pod = pictureOfPod();
      for (const command of ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS']) {
        const call = { ...given, CNI_COMMAND: command, CNI_PATH: pluginPath };
        const answer = await answerOf(plugin, text.slice(end + 1), call, { program, find });
        if (command === 'ADD' && answer && 'code' in answer && text === valid)
          throw new Error(`ADD was refused for no reason: ${JSON.stringify(answer)}`);
        if (command === 'ADD' && answer && 'code' in answer && pictureOfPod() !== pod)
          throw new Error(`ADD was refused and changed the pod: ${pictureOfPod()}, before: ${pod}`);
        if (command !== 'ADD' && command !== 'STATUS') continue;
        const now = pictureOfBystander();
        if (now !== bystander) throw new Error(`A bystander was changed: ${now}, before: ${bystander}`);
      }
    },
  };
}

export const hostTargets: readonly Target[] = [resultCache, ...lives.map(lifeOf)];
