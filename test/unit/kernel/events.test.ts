import test from 'ava';
import { waitUntilUp } from '../../../lib/kernel/bridge-port.ts';
import { NetlinkGroup, waitForEvent } from '../../../lib/kernel/events.ts';
import { createLink, deleteLink, getLink, requireLink, setLink } from '../../../lib/kernel/link.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';

/** A namespace with a link, gone with the process. */
function makeLink() {
  const netns = Netns.create();
  const socket = openRouteSocket(netns);
  socket.execute(createLink({ kind: 'bridge' }, { name: 'br0' }));
  return { netns, socket, link: requireLink(socket, 'br0') };
}

test('a request that another thread waits for: done while this one goes on, or refused', async (t) => {
  const { socket, link } = makeLink();
  let went = false;
  const deletion = socket.executeInThreadPool(deleteLink(link.index, link.name)).then(() => {
    t.true(went, 'the caller was not kept');
  });
  went = true;
  await deletion;
  t.is(getLink(socket, 'br0'), undefined);
  const error = await t.throwsAsync(socket.executeInThreadPool(deleteLink(link.index, link.name)));
  t.like(error, { code: 'ENODEV', message: 'Cannot delete interface "br0": no such device (ENODEV)' });
  t.is(getLink(socket, 'lo')?.name, 'lo', 'the socket is in order');
});

test('waiting: for what holds already, what comes to hold, what never does', async (t) => {
  const { netns, socket, link } = makeLink();
  t.true(await waitForEvent(NetlinkGroup.Link, 0, () => true, netns));
  t.false(await waitForEvent(NetlinkGroup.Link, 10, () => false, netns));

  let looks = 0;
  const isUp = () => {
    looks++;
    // By the second look, somebody listens: what happens from here on is reported.
    if (looks === 2) socket.execute(setLink(link.index, { up: true }, 'br0'));
    return looks > 2 && requireLink(socket, 'br0').up;
  };
  t.true(await waitForEvent(NetlinkGroup.Link, 5000, isUp, netns));
  t.is(looks, 3, 'the kernel reports it, rather than being asked again and again');
});

test('other calls go on while one waits', async (t) => {
  const { netns } = makeLink();
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  t.false(await waitForEvent(NetlinkGroup.Link, 1000, () => false, netns));
  clearInterval(timer);
  t.true(ticks > 0);
});

test('a link without a carrier does not come up, which a busy kernel gets ten seconds for', async (t) => {
  const { netns, socket, link } = makeLink();
  const start = performance.now();
  t.false(await netns.run(() => waitUntilUp(socket, link.index)));
  t.true(performance.now() - start > 9000);
});
