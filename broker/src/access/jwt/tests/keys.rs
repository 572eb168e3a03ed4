//! Keys that only tests know. `ring` signs with RSA keys but cannot make any, and neither makes nor
//! takes a short one.

/// An RSA key of 2048 bits, in PKCS#8.
pub(super) const RSA_1: &str = "\
    MIIEvwIBADANBgkqhkiG9w0BAQEFAASCBKkwggSlAgEAAoIBAQDEfNt3pR8G3+H1f+Td9lmIKSs2KRAsaJumBm8tnaWR\
    yHQZkLl1/H5NFjmW4Z/8qWBFN/0VvdXLVNfFY99k7Fkn3sqCcwC/ibYdASiyphv5lgOeJpo59xa1rPr25g1iz/qSJGz5\
    o7n3myA3IZB44kwrteYYU5cUpTv9EwLe4wA0dYnNhGOqLhGu7oYIOgR5x6p/9+CLSmXU6BSzFcUMa2JAxa6eMyZrdqW0\
    MUlXwL7w2foC6OgeXl8JhTREceCr/x5/yk2PNv9hxxdqAH8WHnEWPbJi81jcy9s1okckIJepyr1gVrzidlOPbYH7rlcw\
    +hIFaPPXvGNQhDJuThBL6IaRAgMBAAECggEAAYbsOGR9dpLhhq7qcG8sXZ/e82947goXa5WRN6GKBTVcRvaWT7xuntrA\
    B9QpEiWe10A1ef3Hs5TX4x4rlkqKnCy3FjHJR7PM89zBHDeo7/+id5Av5/4WRxiDuszUPc2v/NgboLUNCkeXsICqRsY7\
    dqYrQPUlWhu5TkuKMivsIdGPMQyHXiwuV5BgyyQkU9pabYpVebnQo+RV/JaNVgFzoays44pzVZ07hT6AJgh2nwJGSKUD\
    duQlLnGe5TDnHt7EOe6qtFjgTJa15D85w8lC0Rrn7JdfMqv3idwBE3PXkkD6A8kaSF01y4nUMzU1m+xibk1WuR8Tgdr2\
    8VdCl6IOIQKBgQD7UKlfGnEE5m7htc9PNw4DDI52MvVD3nk1oob/+w0OE8NrQzQYmI0Imtx426wUmPPzqYu319pvTAT2\
    xgm4frsbDoYdq5ml575+3iEZMHQM8feP2+TJOFHetSKtTmJdSmPxZBNlLKoFa+RifiZ8xqwiiDyOowHncggZNwbjZhVR\
    AwKBgQDIJou606atFDMQdXcJs/mDUNnTh5mjyQq+bsdvrXRKkAmvz++JGaoMcMa2FJGn7ZBD4Gs1A7IkDS56Z7kW3ein\
    8ym7G3LOBJVsK3qIkmK3ZGnOVyjNnC8ofAmEqbiv7+FM8VBgWulghuhqsm9RIkQKSQRXPIk/FjSpJWq6L+MT2wKBgQC1\
    hAoBJdDxsBnwLmfgmCwnqZ8P4jhh38L+KTiGlOZV/5JK28w5450h1PBe3pMIgXzZxeCjVWVws6B2OI120xoDLddSgMnG\
    GX7ulTOkxOldHDspjbJOX75KM9wq/o1vQjazeAvGLJ9UsRvQw7q6rqhPfMT4ZOYQK72LsMHp5qaIzwKBgQCeu2sfjNFn\
    /FgPGomAaXpdeVZ3WtgvO7bIlkSWvgI3TApSo1795RumaB4/swpdGpvKKQX88mRqEQYmT3JLv0vPPpp+6GLhHmN+ePDh\
    tO6TMRB0c01J2y7PNae6zXtKFL0ib1LmR9NEGVnjnIWJ29oIKiZGJR1Xqf2zk5gT9vxo9wKBgQDB6pudq4SxCGrCY/0b\
    Wa+g0cnO00/v9kWCo2CrVOXzcPn3DM8VglvqsVHNbxpYnansuOE/5t+2JrOAXnetXqziIlzCY81Rsv/KMqr0BHO0nCXO\
    j6X/nWfxu0L61Z2JOIAnux+JihGTHs/vQQVT52Thd9OTrh4wyniTxvunSh1jiQ==";

/// Another one.
pub(super) const RSA_2: &str = "\
    MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCcmsZ96X0sq6TKR8S5xxxqG+7otEf2AlY5WAqREONK\
    o1ZItXtX6qmuIFLC/b3bebJpz8edHOQKLjhbxi0FIhYXnTB23A+m50gMkeHj5QFsIhHoTMZeOcXX6Ksj8wXBZ+tRtZDN\
    cabJLQj3IkeOQcsw2N8B1jCAN2PW+6c9rgRRsyY6Y7C5hQqK2JMZcD1Hl8Mo9JYiF6Q30QejyEBuuBmFCFWG8zScbaSP\
    KMusnwvpbJtTV7CYeS2CGAC1ro6Ih3jOllA+k1vqYmOxE1NON7si5ng4IxNnSI9tXFFvPla5Mj/pk749RGDXzTEJR5vh\
    2XlzjA9mls4AObVFiTrEx09xAgMBAAECggEAJkHBP70scR81UJ0bt+6mSF2ujXaNJdIIUlXpruqbO/6O85AyI5YWAY2v\
    6iamnNkr9qFluEH4i2wjJHhTQy/Cid5CmqbDxBg4B6oTruKg6FOiYEdxJk+iv039kPirbUX/vKRITYf4IKk5yXW8WUpF\
    Yxd30zEKBCiD4V70yiKat4JUSjR4zkaHNpTnDj771+u/irwKag3X1S9KsOyUzRrX+ZuDcvxNplc6vmM38DuNtTb1agJD\
    bjCD5eWIKRclZ0OnxYJTtwcQesLpCx8q4ZVX+RSg0VDZSUJcUB/RglW0lbE/SsK2i7csNixssAVoYc7A5xcUBRcPxTzt\
    u/P98AtSaQKBgQDVlMzp6AxCldfFapF5Gz0xwr/XwN3EDYdI6BgtsjExTzGsXjLx/vBdzfTh6VGnDqmxyQuomaBaKxTu\
    ENgO0BBLtCDfs+zXA4yIc0FR2LWVOv5Ie/YBMs/9WiDCrBcn1zzjxy7bPLt0X5UwH4Aeci2e2d+9b7PlFrsUcL3lC06F\
    1wKBgQC7tRZL+JgQ0l3vXyS0hUPGWbVhgiEf+xl9PBEzbM52CNGffkT/xERd2bM4aRhGr2LFMgmNwrm1JOiPe+Hwmnu7\
    lnGVGuZb8Ca8qwdZKw4p5YflckaMr8qjXloCLPzLf5cx660b0t80+o8ipR3cjqx7biYM4oegBlyFolWN4X2b9wKBgFeH\
    Vbr+WBfppLXJCLkjCp8b+tcGuVuhV7HvPAluH27fz7GeIS6/le47e4Ihxk66WZz8kYSVAPwy767oxEK9zg/YUCidahBr\
    6en5oelS8Iep15AJDTZMhqSDjS16rTqsoM2QUYmTiBcXHOLN5gmULVIOY/0UjBr0h9LGqWv2iEWdAoGAJHddyYyWHk6A\
    KUzWmKt7K0GqVzMstEXYAdh1jwQIaC32a4Hgbb/3eDQe+UqRiMnx6lV6Pawi3+o3tAhhMJkSiLMFhe4f6qSRIf4oA062\
    BbWt3QmCYzqTp4FhAyMySWaUPQKIMuuYqXYz8IsbbgnZwHD5u28W4iPaPav36wRvnqkCgYEAlvojX6mwaKskJzcC+8CV\
    arb6cdhbhgXLvLFoLnQJlW7/PYpbCh+rib02q5ACmWOHKrMgtM8GVNzuqy5XQITFwdre5WOkizdnVzcHcKcQxFqImiHj\
    3KCN1x2x914wsgTjs4L9yFqplPedKnZMMzWU4A7HdVlvbBqvPjZwhU3CQag=";

/// The modulus of an RSA key of 1024 bits.
pub(super) const SHORT_N: &str = "\
    rzXXWo7OwNnfJh1Sp9Q6tsFYxPA5FbJ-\
    kT15xyza2gUJnhoA3EPlhU4kWLZDPh_tjhmqN_G_HjFrsT5MDrDuASrbao6KzodQ3w7qX1OgNS89IG-\
    sVBbblluwfq9hy0OedZZzgU1gpNg7-bvM0xvNnUTQMfBlmWTit0ZZFa8NgH8";

/// A token by that key, right in everything else.
pub(super) const SHORT_TOKEN: &str = "\
    eyJhbGciOiJSUzI1NiIsImtpZCI6InNob3J0IiwidHlwIjoiYXQrand0In0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1w\
    bGUiLCJhdWQiOiJ3ZWZ0Iiwic3ViIjoiYWxpY2UiLCJleHAiOjIwMDAwMDA2MDAsImlhdCI6MjAwMDAwMDAwMH0.CdQZ\
    n3H6yY2S5Ldy3NWxLfVS_5y-\
    QBRTFlCQON7Bi4EUDwz7rjSSmg9UhhgbtfYObQQCaKVp8rBmPZjduO0F_L97gdnAitU6SgSei17ZhiBf6WZkHh5A0pud\
    CkFhKD5qLuHmm3Nrcp0mmWcF7-VFecrwtvJRzz1CY53DyKCyDmE";
