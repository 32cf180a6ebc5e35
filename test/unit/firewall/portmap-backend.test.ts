import test from 'ava';
import { mappingsOf, takenError } from '../../../lib/firewall/portmap-backend.ts';
import { Address } from '../../../lib/ip.ts';

test('a port that is taken is said to be by whom, on which network as far as that is known', (t) => {
  const mapping = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };
  const message = (network?: string) =>
    takenError(mapping, { containerId: 'one', network }, '10.1.0.5:80').message;
  t.regex(
    message('net'),
    /^Port 8080\/tcp of the host is taken by container "one" on network "net", where it /,
  );
  t.regex(
    message(),
    /^Port 8080\/tcp of the host is taken by container "one", where it leads to 10\.1\.0\.5:80\./,
  );
});

test('a mapping of every address of one family, as nerdctl asks for, is none of the other', (t) => {
  const mapping = (hostPort: number, hostIP?: string) => {
    const address = hostIP === undefined ? undefined : Address.parse(hostIP);
    return { hostPort, containerPort: 80, protocol: 'tcp', ...(address && { hostIP: address }) };
  };
  const all = [
    mapping(1),
    mapping(2, '0.0.0.0'),
    mapping(3, '::'),
    mapping(4, '192.0.2.1'),
    mapping(5, 'fd00::1'),
  ];
  const portsOf = (family: 4 | 6) => mappingsOf(all, family).map(({ hostPort }) => hostPort);
  t.deepEqual(portsOf(4), [4, 1, 2]);
  t.deepEqual(portsOf(6), [5, 1, 3]);
});
