#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

/* Macros of OpenSSL that Swift does not import. */
static inline int martlet_evp_pkey_public_key(void) { return EVP_PKEY_PUBLIC_KEY; }
static inline int martlet_evp_pkey_keypair(void) { return EVP_PKEY_KEYPAIR; }
