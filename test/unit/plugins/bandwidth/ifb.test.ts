import test from 'ava';
import type { RouteSocket } from '../../../../lib/kernel/route-socket.ts';
import { findIfb } from '../../../../plugins/bandwidth/ifb.ts';

test("the name looked for is the reference plugin's", (t) => {
  const asked: string[] = [];
  const host = {
    execute({ action }: { action: string }) {
      asked.push(action);
      return [[]];
    },
  } as unknown as RouteSocket;
  const attachment = { network: 'name1', containerId: 'cid', ifname: 'eth0' };
  const call = { host, attachment, ifname: 'eth0', prevResult: undefined, sandboxIfPresent: undefined };
  t.is(findIfb(call), undefined);
  t.is(asked[0], 'look up interface "bwpc6b07ef85870"');
});
