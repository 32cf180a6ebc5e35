/** What is at fixed paths, or on interfaces. It is tried on a host of its own, with a bystander on it. */

import { lutimesSync, mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { heldByOthers, notedAddresses } from '../../lib/firewall/address-holders.ts';
import { portMapChain } from '../../lib/firewall/names.ts';
import { forgetAttachments, isHolderGone, notedAttachments } from '../../lib/firewall/portmap-notes.ts';
import { Address } from '../../lib/ip.ts';
import { cachedResults } from '../../lib/result-cache.ts';
import { fixedTargets } from './fixed-targets.ts';
import { lifeTargets } from './life-targets.ts';
import { beginAnew } from './own-host.ts';
import { guarded, plant, plantings } from './plant.ts';
import type { Target } from './target.ts';

const attachment = { network: 'n', containerId: 'c1', ifname: 'eth0' };
/** What files outside hold. */
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
    // Nothing may keep a plugin from its work: these are hints.
    const read = readHints();
    if (JSON.stringify(read).includes(secret) && planted !== results)
      throw new Error('Something outside was read');
    check();
  },
};

/**
 * Within how many milliseconds inputs on the host must be answered: each runs a dozen programs, which wait
 * for kernel locks that others hold while they make and remove network namespaces.
 */
const longest = 30_000;

export const hostTargets: readonly Target[] = [resultCache, ...fixedTargets, ...lifeTargets].map(
  (target) => ({ longest, begin: beginAnew, ...target }),
);
