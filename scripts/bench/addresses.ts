/** host-local: one verb at a time, on a host where many addresses are reserved. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { Address } from '../../lib/ip.ts';
import { type Contender, call, contenders } from './call.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

/** ADD and DEL of one address. @param count addresses that are reserved already. */
export function hostLocal(count: number, rounds: number): Scenario {
  const name = `host-local, ${count.toLocaleString('en')} reserved`;
  return {
    name,
    async measure() {
      const [add, del] = [emptySamples(), emptySamples()];
      const directory = (contender: Contender) => `/var/lib/cni/bench-${contender}`;
      for (const contender of contenders) reserve(`${directory(contender)}/bench`, count);
      await alternate(rounds, async (contender, round, counts) => {
        const config = {
          name: 'bench',
          type: 'host-local',
          ipam: { type: 'host-local', dataDir: directory(contender), subnet: '10.0.0.0/8' },
        };
        const verb = { contender, containerId: `round${round}`, netns: '/unused' };
        const added = await call('host-local', { ...verb, command: 'ADD' }, config);
        const deleted = await call('host-local', { ...verb, command: 'DEL' }, config);
        if (!counts) return;
        add[contender].push(added.time);
        del[contender].push(deleted.time);
      });
      for (const contender of contenders) rmSync(directory(contender), { recursive: true });
      return [
        { name: `${name}: ADD`, unit: 'ms', samples: add },
        { name: `${name}: DEL`, unit: 'ms', samples: del },
      ];
    },
  };
}

function reserve(directory: string, count: number): void {
  mkdirSync(directory, { recursive: true });
  const first = Address.parse('10.0.0.2');
  for (let i = 0; i < count; i++) writeFileSync(`${directory}/${first.plus(i)}`, `present${i}\r\neth0`);
  writeFileSync(`${directory}/last_reserved_ip.0`, `${first.plus(count - 1)}`);
}
