/** podman, with its CNI backend, runs containers on our plugins. */

import { snapshot } from '../support/observe.ts';
import { browseCommand, pageOf } from './support/image.ts';
import { greeting, makeNode, webImage } from './support/node.ts';
import { Podman, podmanTest as test } from './support/podman.ts';

test('run -p on the default network: the port answers on the host, and rm leaves nothing behind', async (t) => {
  const node = await makeNode(t);
  const podman = await Podman.prepare(node);
  await podman.run('network', 'create', '--disable-dns', 'second');
  // podman passes the ports to each network.
  const networks = ['--network', 'podman', '--network', 'second'];
  await podman.runContainer('other', [...networks, '--publish', '18079:80'], [webImage]);
  t.is(await node.browse('127.0.0.1', 18079), greeting);
  const before = await snapshot(node);
  await podman.runContainer('web', ['--publish', '18080:80'], [webImage]);
  const { IPAddress: ip } = await podman.networkOf('web', 'podman');
  t.is(await node.browse(ip), greeting);
  t.is(await node.browse('127.0.0.1', 18080), greeting);
  t.is(await node.browse('10.88.0.1', 18080), greeting);
  t.is(pageOf(await podman.run('exec', 'other', ...browseCommand(ip, 80))), greeting);
  t.is(pageOf(await podman.run('exec', 'other', ...browseCommand('10.88.0.1', 18080))), greeting);

  await podman.run('rm', '--force', '--time', '0', 'web');
  t.deepEqual(await snapshot(node), before);
});

test('a dual-stack network with its own subnets: containers get the requested addresses and reach one another', async (t) => {
  const node = await makeNode(t);
  const podman = await Podman.prepare(node);
  await podman.run(
    'network',
    'create',
    '--disable-dns',
    '--subnet',
    '10.99.7.0/24',
    '--ipv6',
    '--subnet',
    'fd00:99:7::/64',
    'blue',
  );
  await podman.runContainer('client', ['--network', 'blue', '--publish', '18078:80'], [webImage]);
  await podman.run('network', 'reload', 'client'); // DEL, then ADD, into the same namespace
  const client = await podman.networkOf('client', 'blue');
  t.is(await node.browse(client.IPAddress), greeting, 'after a reload');
  t.is(await node.browse('10.99.7.1', 18078), greeting, 'after a reload');
  const before = await snapshot(node);
  await podman.runContainer(
    'web',
    [
      '--network',
      'blue',
      '--ip',
      '10.99.7.77',
      '--mac-address',
      '02:00:5e:10:00:77',
      '--publish',
      '18081:80',
    ],
    [webImage],
  );
  const web = await podman.networkOf('web', 'blue');
  t.is(web.IPAddress, '10.99.7.77');
  t.is(web.MacAddress, '02:00:5e:10:00:77');
  t.regex(web.GlobalIPv6Address, /^fd00:99:7::/);
  for (const address of [web.IPAddress, web.GlobalIPv6Address]) {
    t.is(await node.browse(address), greeting, `${address}, from the node`);
    t.is(
      pageOf(await podman.run('exec', 'client', ...browseCommand(address, 80))),
      greeting,
      `${address}, from the other container`,
    );
  }
  t.is(await node.browse('10.99.7.1', 18081), greeting);
  t.is(await node.browse('fd00:99:7::1', 18081), greeting);

  await podman.run('rm', '--force', '--time', '0', 'web');
  t.deepEqual(await snapshot(node), before);
  await podman.run('rm', '--force', '--time', '0', 'client');
  await podman.run('network', 'rm', 'blue');
});
