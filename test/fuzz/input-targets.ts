/** What the runtime hands over: configuration, results, environment. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { networkFrom } from '../../cli/libcni/conflist.ts';
import { parseArgs } from '../../lib/cni/invocation.ts';
import { answerOf, environmentOf, plugins, sampleList, withoutEffects } from './calls.ts';
import { mayRefuse, type Target } from './target.ts';

const verbs = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'];
const lists = readdirSync(join(import.meta.dirname, '../../conf'))
  .filter((file) => file.endsWith('.conflist'))
  .map(sampleList);
const idlePlugins = plugins.map(withoutEffects);

const prevResult = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1500, sandbox: '/run/netns/a' }],
  ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1', interface: 0 }],
  routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1', mtu: 1400, table: 5, scope: 0 }],
  dns: { nameservers: ['10.1.0.1'], domain: 'example.com', search: [], options: [] },
};

/**
 * The configuration of one plugin, which is read and validated without looking at the host. Samples have
 * every key of conf/. What verbs do is tried in host-targets.ts.
 */
const standardInput = plugins.map(
  ({ name }, index): Target => ({
    name: `config-${name}`,
    samples: lists
      .flatMap((list) => list.plugins)
      .flatMap((config) => [config, config.ipam as Record<string, unknown> | undefined])
      .filter((config) => config?.type === name)
      .concat({ type: name, ipam: { type: name } })
      .flatMap((config) => [
        { cniVersion: '1.1.0', name: 'n', ...config, ipam: config?.ipam ?? config, prevResult },
        { cniVersion: '1.1.0', name: 'n', ...config, 'cni.dev/valid-attachments': [], runtimeConfig: {} },
      ])
      .map((config) => JSON.stringify(config)),
    async run(input) {
      for (const verb of verbs)
        await answerOf(idlePlugins[index]!, input.toString('utf8'), environmentOf(verb));
    },
  }),
);

const ptp = idlePlugins.find(({ name }) => name === 'ptp')!;

export const inputTargets: readonly Target[] = [
  ...standardInput,
  {
    name: 'config-prev-result',
    samples: ['0.2.0', '0.4.0', '1.1.0'].map((cniVersion) => JSON.stringify({ ...prevResult, cniVersion })),
    async run(input) {
      for (const version of ['0.1.0', '0.2.0', '0.4.0', '1.1.0'])
        for (const verb of ['ADD', 'DEL', 'CHECK'])
          await answerOf(
            ptp,
            `{"cniVersion":"${version}","name":"n","type":"ptp","ipam":{"type":"static"},"prevResult":${input}}`,
            environmentOf(verb),
          );
    },
  },
  {
    name: 'config-environment',
    samples: ['CNI_COMMAND=ADD\0CNI_CONTAINERID=c\0CNI_IFNAME=eth0\0CNI_NETNS=/n\0CNI_PATH=/none'],
    async run(input) {
      const environment = Object.fromEntries(
        input
          .toString('utf8')
          .split('\0')
          .map((pair): [string, string] => [pair.split('=')[0]!, pair.slice(pair.indexOf('=') + 1)]),
      );
      await answerOf(ptp, '{"cniVersion":"1.1.0","name":"n","type":"ptp","ipam":{}}', environment);
    },
  },
  {
    name: 'cni-args',
    samples: ['IgnoreUnknown=1;IP=10.1.0.2;K8S_POD_NAME=a', 'MAC=02:00:00:00:00:01'],
    run: (input) => mayRefuse(() => parseArgs(input.toString('utf8'), ['IP', 'MAC'])),
  },
  {
    name: 'network-list',
    samples: lists.map((list) => JSON.stringify(list)),
    run: (input) => mayRefuse(() => networkFrom(JSON.parse(input.toString('utf8')), input, 'a.conflist')),
  },
];
