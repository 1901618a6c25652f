/* The floor of the speed runs: libpcap hands over every packet of a file, and nothing is done with them but to count.
 * Whoever reads captures by libpcap cannot need less.
 * Built by `cargo xtask bench`: cc -O2 -o floor floor.c -lpcap
 */
#include <inttypes.h>
#include <pcap/pcap.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	char why[PCAP_ERRBUF_SIZE];
	struct pcap_pkthdr *header;
	const unsigned char *bytes;
	uint64_t packets = 0, octets = 0, first_octets = 0;
	pcap_t *capture;
	int got;

	if (argc != 2) {
		fprintf(stderr, "usage: floor CAPTURE\n");
		return 2;
	}
	capture = pcap_open_offline(argv[1], why);
	if (capture == NULL) {
		fprintf(stderr, "floor: %s\n", why);
		return 1;
	}
	while ((got = pcap_next_ex(capture, &header, &bytes)) == 1) {
		packets++;
		octets += header->len;
		/* One octet of each packet, so that its memory is touched. */
		first_octets += header->caplen > 0 ? bytes[0] : 0;
	}
	if (got == PCAP_ERROR)
		fprintf(stderr, "floor: %s\n", pcap_geterr(capture));
	printf("packets %" PRIu64 " bytes %" PRIu64 " first octets %" PRIu64 "\n", packets, octets, first_octets);
	pcap_close(capture);
	return got == PCAP_ERROR;
}
