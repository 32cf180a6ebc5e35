import { readdirSync } from 'node:fs';
import test from 'ava';
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
