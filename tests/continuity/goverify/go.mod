module quorumca.invalid/goverify

go 1.21
