import { readdirSync } from 'node:fs';
import test from 'ava';
import { getLink } from '../../../lib/kernel/link.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';
import { encodeMessage, Flag } from '../../../lib/netlink/message.ts';
import { NetlinkProtocol, NetlinkSocket } from '../../../lib/netlink/socket.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

test('a socket that cannot be made ready leaves no descriptor open', (t) => {
  new NetlinkSocket(NetlinkProtocol.Netfilter).close();
  const before = descriptors();
  // Without privileges, nobody may listen to reports of this protocol.
  process.seteuid!(65534);
  try {
    t.throws(() => new NetlinkSocket(NetlinkProtocol.Netfilter, { groups: 1 }), {
      message: /listen to reports of the kernel.*EPERM/,
    });
  } finally {
    process.seteuid!(0);
  }
  t.is(descriptors(), before);
});

test('a late answer to an earlier request is not taken for one to the next', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  const RTM_DELLINK = 17;
  const request = { action: 'delete nothing', type: RTM_DELLINK, flags: 0, payload: new Uint8Array(16) };
  // As after a call that was given up: sent under an earlier number, and its refusal not read.
  const inner = socket as unknown as { send(messages: Uint8Array[]): void; sequence: number };
  inner.send([encodeMessage(request, inner.sequence++, Flag.Ack)]);
  t.is(getLink(socket, 'lo')?.name, 'lo');
  t.is(getLink(socket, 'none'), undefined);
});
