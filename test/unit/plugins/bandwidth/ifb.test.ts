import test from 'ava';
import type { RouteSocket } from '../../../../lib/kernel/route-socket.ts';
import { findIfb } from '../../../../plugins/bandwidth/ifb.ts';

test("the name looked for is the reference plugin's", (t) => {
  const asked: string[] = [];
  const socket = {
    execute({ action }: { action: string }) {
      asked.push(action);
      return [[]];
    },
  } as unknown as RouteSocket;
  t.is(findIfb(socket, { network: 'name1', containerId: 'cid', ifname: 'eth0' }), undefined);
  t.is(asked[0], 'look up interface "bwpc6b07ef85870"');
});
